"""How much of something an input has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from fedexp.tasks.base import GROUPS, Array, Facts, Grouping, Task, register

if TYPE_CHECKING:
    from torch import Tensor

NUM_BINS = 10
"""Groups of equally many training examples, by their targets, that partitions tell apart."""

FACTOR = 1e6
"""How many times worse than always saying 0 a model must be to have diverged."""


@register
class Regression(Task):
    """Targets are numbers (float32, shape (N,) or (N, values)), and so are outputs, shape (n, values).

    The loss is the mean squared error, over examples and values.
    """

    name = "regression"
    words = "regression"
    metrics = ("rmse", "loss", "mae", "r2")
    headline = "rmse"
    told_apart_by = GROUPS
    group = "target"
    axes: ClassVar[Mapping[str, str]] = {
        "rmse": "rmse (all test examples)",
        "loss": "loss (mean squared error)",
        "mae": "mae (all test examples)",
        "r2": "r2 (share of variance explained)",
    }

    def loss(self) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the mean squared error."""
        from torch.nn import functional as F

        def squared(outputs: Tensor, targets: Tensor) -> Tensor:
            return F.mse_loss(outputs.view_as(targets), targets)

        return squared

    def judge(self, outputs: Tensor, targets: Tensor, *, probabilities: bool) -> list[Tensor]:
        """Return the numbers that are predicted, and the squared error of each example."""
        predicted = outputs.view_as(targets).double()
        squares = (predicted - targets.double()).square()
        return [predicted, squares if squares.ndim == 1 else squares.mean(1)]

    def facts(self, inputs: Sequence[Array], targets: Sequence[Array]) -> Facts:
        """Count the values of an example."""
        return Facts(values=_width(targets[0]))

    def target_problem(self, inputs: Array, targets: Array) -> str | None:
        """Targets are finite numbers."""
        if targets.dtype != np.float32 or targets.ndim not in (1, 2) or targets.size == 0:
            return (
                "numbers as targets (float32, shape (N,) or (N, values)), got "
                f"{targets.dtype}{targets.shape}"
            )
        finite = np.isfinite(targets.reshape(len(targets), -1)).all(axis=1)
        if not finite.all():
            row = int(np.flatnonzero(~finite)[0])
            return f"finite numbers as targets, got {targets[row]} in row {row}"
        return None

    def range_problem(self, targets: Array, facts: Facts) -> str | None:
        """There are as many values as the page says."""
        if _width(targets) != facts.values:
            return f"{_width(targets)} values as a target; its page says {facts.values}"
        return None

    def grouping(self, train: Array, test: Array, classes: tuple[str, ...]) -> Grouping:
        """Put examples into tenths of the training examples, by the first value of their targets.

        Equal targets are in one group, so that there may be fewer than ten.
        """
        first, other = (part.reshape(len(part), -1)[:, 0] for part in (train, test))
        shares = np.arange(1, NUM_BINS) / NUM_BINS
        # The edges are targets that occur: interpolation could round differently elsewhere.
        edges = np.unique(np.quantile(first, shares, method="lower"))
        edges = edges[edges < first.max()]
        names = [f"<= {edge:.4g}" for edge in edges]
        names.append(f"> {edges[-1]:.4g}" if len(edges) else "all")
        groups = [np.searchsorted(edges, part, side="left") for part in (first, other)]
        return Grouping(groups[0].astype(np.int64), groups[1].astype(np.int64), names)

    def largest_loss(self, targets: Array) -> float:
        """Return a million times the mean square of the targets (of 1, where all are 0)."""
        return FACTOR * (float(np.square(targets, dtype=np.float64).mean()) or 1.0)


def _width(targets: Array) -> int:
    return 1 if targets.ndim == 1 else int(targets.shape[1])
