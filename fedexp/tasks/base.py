"""What a task is: what is to be said of an input, how wrong an answer is, and how that is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from fedexp.core.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

TOKENS = "tokens"
"""The kind of inputs that stay integers until the model looks them up."""

IGNORED = -100
"""Stands in targets where nothing is to be predicted, such as behind the end of a text."""

LABELS, GROUPS, NOTHING = "labels", "groups", "nothing"
"""What examples can be told apart by when they are dealt: their labels; groups that were made of their
targets; nothing."""

Array = npt.NDArray[Any]


class Facts(NamedTuple):
    """What a task must know of a dataset; see :class:`fedexp.data.examples.Spec`."""

    classes: tuple[str, ...] = ()
    vocabulary: int = 0
    values: int = 0


class Grouping(NamedTuple):
    """Examples by what partitions tell them apart by.

    Attributes:
        train: Group of every training example, int64, shape (num_train,), values 0 .. len(names) - 1.
        test: Group of every test example.
        names: What the groups are called.
    """

    train: npt.NDArray[np.int64]
    test: npt.NDArray[np.int64]
    names: list[str]


class Task:
    """What is to be said of inputs; the pages in this folder are the tasks that there are.

    Attributes:
        name: What a dataset's page calls it.
        words: What it is called in a sentence.
        metrics: What every run measures, the headline first.
        headline: The metric that models are judged by: in tables, figures and tests.
        told_apart_by: What partitions can tell examples apart by: ``labels``, ``groups`` or ``nothing``.
        group: What one of the groups is called: ``label``, or empty where there are none.
        has_confusion: Whether a model can take one label for another.
        axes: Metric -> what its axis in a figure is called.
    """

    name: ClassVar[str] = ""
    words: ClassVar[str] = ""
    metrics: ClassVar[tuple[str, ...]] = ()
    headline: ClassVar[str] = ""
    told_apart_by: ClassVar[str] = NOTHING
    group: ClassVar[str] = ""
    has_confusion: ClassVar[bool] = False
    axes: ClassVar[Mapping[str, str]] = {}

    def loss(self) -> Callable[[Tensor, Tensor], Tensor]:
        """Return what training makes small: from a batch's outputs and targets to one number."""
        raise NotImplementedError

    def counted(self, targets: Tensor) -> int:
        """Return how many predictions a batch's loss is the mean of."""
        return len(targets)

    def judge(self, outputs: Tensor, targets: Tensor, *, probabilities: bool) -> list[Tensor]:
        """Return what metrics see of a batch: predictions, losses (float64), probabilities if asked."""
        raise NotImplementedError

    def expected(self, targets: Array) -> tuple[Array, npt.NDArray[np.int64] | None]:
        """Return what is right, a row per prediction, and where each example's predictions begin.

        Returns:
            The targets; and offsets, shape (N + 1,), or None where an example is one prediction.
        """
        return targets, None

    def output_shape(self, count: int, shape: tuple[int, ...], outputs: int) -> tuple[int, ...]:
        """Return the shape of what a model makes of so many inputs of a shape."""
        return count, outputs

    def facts(self, inputs: Sequence[Array], targets: Sequence[Array]) -> Facts:
        """Measure training and test examples, whose targets are sound."""
        raise NotImplementedError

    def target_problem(self, inputs: Array, targets: Array) -> str | None:
        """Say what targets must be and are not; None where they are."""
        raise NotImplementedError

    def range_problem(self, targets: Array, facts: Facts) -> str | None:
        """Say what sound targets are beyond what the dataset's page says; None where nothing is."""
        return None

    def grouping(self, train: Array, test: Array, classes: tuple[str, ...]) -> Grouping:
        """Put examples into groups, for partitions and for the clients' shares of the test examples."""
        return Grouping(np.zeros(len(train), np.int64), np.zeros(len(test), np.int64), ["examples"])

    def group_words(self) -> dict[str, str]:
        """Return what partition.json says of the groups; where it says nothing, they are labels."""
        return {"groups": self.group}

    def largest_loss(self, targets: Array) -> float:
        """Return the loss from which on a model has diverged."""
        raise NotImplementedError

    def described(self, lower_is_better: Sequence[str], *, confused: bool = True) -> dict[str, Any]:
        """Return what summary.json says of the task; what reads finished runs knows nothing else.

        Args:
            lower_is_better: Those of the run's metrics of which a smaller number is the better one.
            confused: Whether anybody counts which label is taken for which, where the task has labels.
        """
        return {
            "task": {
                "name": self.name,
                "headline": self.headline,
                "lower_is_better": list(lower_is_better),
                "confusion": self.has_confusion and confused,
                "axes": dict(self.axes),
            }
        }


REGISTRY: Registry[Task] = Registry("task", Task)
register = REGISTRY.register


def fits(wanted: Sequence[str], task: str) -> bool:
    """Say whether a page that declares its tasks goes with one; a page of none goes with all."""
    return not wanted or task in wanted


def token_problem(tokens: Array, what: str) -> str | None:
    """Say why numbers are no tokens; None where they are."""
    if tokens.dtype not in (np.int32, np.int64) or tokens.ndim != 2 or tokens.min(initial=0) < 0:
        return (
            f"{what} that are tokens 0, 1, ... (int32 or int64, shape (N, T)), got "
            f"{tokens.dtype}{tokens.shape}"
            + (f" with {tokens.min()}" if tokens.size and tokens.min() < 0 else "")
        )
    return None
