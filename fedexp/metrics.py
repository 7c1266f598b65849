"""The pages of ``metrics=``: numbers that say how good a model's predictions are.

Accuracy and loss are always measured; ``metrics=[accuracy,macro_f1]`` adds others, for every round,
subset of labels and client.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fedexp.core.registry import Registry

__all__ = ["Metric", "Predictions", "choices", "get", "register"]

ALWAYS = ("accuracy", "loss")
"""The metrics that every run has."""


@dataclass(frozen=True)
class Predictions:
    """What a model says of some examples, and what is right.

    Attributes:
        targets: The labels, int64, shape (N,).
        labels: The predicted labels, int64, shape (N,).
        losses: The loss on each example in nats, float64, shape (N,).
        probabilities: Of every label, float64, shape (N, num_classes), rows sum to 1; None where no
            metric of the run needs them.
    """

    targets: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    losses: npt.NDArray[np.float64]
    probabilities: npt.NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def select(self, which: npt.NDArray[Any]) -> Predictions:
        """Return the predictions at the given positions, or where a mask is true."""
        probabilities = None if self.probabilities is None else self.probabilities[which]
        return Predictions(
            self.targets[which], self.labels[which], self.losses[which], probabilities
        )


class Metric:
    """A number that says how good predictions are.

    Attributes:
        name: What the command line and the column ``metric`` call it.
        higher_is_better: Whether a larger number is the better one.
        needs_probabilities: Whether it looks at more than the predicted label and the loss.
    """

    name: ClassVar[str] = ""
    higher_is_better: ClassVar[bool] = True
    needs_probabilities: ClassVar[bool] = False

    def of(self, found: Predictions) -> float:
        """Return the number for one example at least."""
        raise NotImplementedError(f"metric {self.name} does not say how it is computed")


REGISTRY: Registry[Metric] = Registry("metrics", Metric)
register, choices, get = REGISTRY.register, REGISTRY.choices, REGISTRY.get


@register
class Accuracy(Metric):
    """The share of examples whose label is predicted, 0 to 1."""

    name = "accuracy"

    def of(self, found: Predictions) -> float:
        """Return the share."""
        return float((found.labels == found.targets).mean())


@register
class Loss(Metric):
    """The mean cross-entropy in nats, 0 and above."""

    name = "loss"
    higher_is_better = False

    def of(self, found: Predictions) -> float:
        """Return the mean."""
        return float(found.losses.mean())


@register
class BalancedAccuracy(Metric):
    """The mean over labels of the share of each label's examples that are right, 0 to 1.

    Over the labels that occur among the targets, as scikit-learn has it.
    """

    name = "balanced_accuracy"

    def of(self, found: Predictions) -> float:
        """Return the mean recall."""
        present, position = np.unique(found.targets, return_inverse=True)
        right = np.bincount(position, found.labels == found.targets, len(present))
        return float((right / np.bincount(position)).mean())


@register
class MacroF1(Metric):
    """The mean over labels of the harmonic mean of precision and recall, 0 to 1.

    Over the labels that occur among targets or predictions; one that is never right counts as 0, as in
    scikit-learn's ``f1_score(average="macro", zero_division=0)``.
    """

    name = "macro_f1"

    def of(self, found: Predictions) -> float:
        """Return the mean F1."""
        from sklearn.metrics import f1_score

        return float(f1_score(found.targets, found.labels, average="macro", zero_division=0))


@register
class Top5(Metric):
    """The share of examples whose label is among the five most probable ones, 0 to 1.

    Of equally probable labels the lower number counts first.
    """

    name = "top5"
    needs_probabilities = True

    def of(self, found: Predictions) -> float:
        """Return the share."""
        assert found.probabilities is not None
        best = np.argsort(-found.probabilities, axis=1, kind="stable")[:, :5]
        return float((best == found.targets[:, None]).any(axis=1).mean())


@register
class CalibrationError(Metric):
    """The expected calibration error, 0 to 1 (Guo et al., arXiv 1706.04599), with 15 equal bins.

    The mean distance between how sure a model is of its prediction and how often it is right.
    """

    name = "ece"
    higher_is_better = False
    needs_probabilities = True

    NUM_BINS: ClassVar[int] = 15

    def of(self, found: Predictions) -> float:
        """Return the mean distance, weighted by the examples of each bin."""
        assert found.probabilities is not None
        sure = found.probabilities[np.arange(len(found)), found.labels]
        # A bin holds its upper end; 0 belongs to the first.
        bins = np.clip(np.ceil(sure * self.NUM_BINS).astype(int) - 1, 0, self.NUM_BINS - 1)
        surplus = (found.labels == found.targets) - sure
        return float(np.abs(np.bincount(bins, surplus, self.NUM_BINS)).sum() / len(found))


@register
class BrierScore(Metric):
    """The mean squared distance between predicted probabilities and the truth, 0 to 2 (Brier 1950)."""

    name = "brier"
    higher_is_better = False
    needs_probabilities = True

    def of(self, found: Predictions) -> float:
        """Return ``mean(sum((p - y) ** 2))`` with one-hot ``y``."""
        assert found.probabilities is not None
        squares = np.square(found.probabilities).sum(axis=1)
        right = found.probabilities[np.arange(len(found)), found.targets]
        return float((squares - 2 * right + 1).mean())
