"""The pages of ``metrics=``: numbers that say how good a model's predictions are.

What a task has by default (accuracy and loss of a classification) is always measured;
``metrics=[macro_f1]`` adds others, for every round, subset of labels and client.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fedexp.core.registry import Registry

__all__ = ["Metric", "Predictions", "choices", "get", "register"]


@dataclass(frozen=True)
class Predictions:
    """What a model says of some examples, and what is right.

    N is the number of examples; where the next token is predicted, of all tokens of all texts.

    Attributes:
        targets: The labels or tokens, int64, shape (N,); of a regression its numbers, float32, shape (N,)
            or (N, values).
        labels: What is predicted: labels or tokens, int64, shape (N,); of a regression numbers, float64,
            of the targets' shape.
        losses: The loss on each example: nats, or its squared error; float64, shape (N,).
        probabilities: Of every label, float64, shape (N, num_classes), rows sum to 1; None where no
            metric of the run needs them.
        offsets: Where each text's tokens begin, and where the last one's end, int64; None where an
            example is one prediction.
    """

    targets: npt.NDArray[Any]
    labels: npt.NDArray[Any]
    losses: npt.NDArray[np.float64]
    probabilities: npt.NDArray[np.float64] | None = None
    offsets: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def predicted(self) -> npt.NDArray[Any]:
        """:attr:`labels`, under the name that suits a regression."""
        return self.labels

    def select(self, which: npt.NDArray[Any]) -> Predictions:
        """Return the predictions of the examples at the given positions, or where a mask is true."""
        if self.offsets is not None:
            return self._select_texts(self.offsets, np.arange(len(self.offsets) - 1)[which])
        probabilities = None if self.probabilities is None else self.probabilities[which]
        return Predictions(
            self.targets[which], self.labels[which], self.losses[which], probabilities
        )

    def _select_texts(
        self, offsets: npt.NDArray[np.int64], texts: npt.NDArray[np.int64]
    ) -> Predictions:
        flat = Predictions(self.targets, self.labels, self.losses, self.probabilities)
        places = [np.arange(offsets[text], offsets[text + 1]) for text in texts.tolist()]
        chosen = flat.select(np.concatenate([np.empty(0, np.int64), *places]))
        ends = np.cumsum([0, *(len(place) for place in places)], dtype=np.int64)
        return replace(chosen, offsets=ends)


class Metric:
    """A number that says how good predictions are.

    Attributes:
        name: What the command line and the column ``metric`` call it.
        higher_is_better: Whether a larger number is the better one.
        tasks: The tasks whose predictions it can judge.
        needs_probabilities: Whether it looks at more than the predicted label and the loss.
    """

    name: ClassVar[str] = ""
    higher_is_better: ClassVar[bool] = True
    tasks: ClassVar[tuple[str, ...]] = ("classification",)
    needs_probabilities: ClassVar[bool] = False

    def of(self, found: Predictions) -> float:
        """Return the number for one example at least."""
        raise NotImplementedError(f"metric {self.name} does not say how it is computed")


REGISTRY: Registry[Metric] = Registry("metrics", Metric)
register, choices, get = REGISTRY.register, REGISTRY.choices, REGISTRY.get


def sign_of(name: str) -> int:
    """Return 1 for a metric of which a larger number is the better one, else -1."""
    return 1 if get(name).higher_is_better else -1


@register
class Accuracy(Metric):
    """The share of examples whose label is predicted, or of tokens that are, 0 to 1."""

    name = "accuracy"
    tasks = ("classification", "next_token")

    def of(self, found: Predictions) -> float:
        """Return the share."""
        return float((found.labels == found.targets).mean())


@register
class Loss(Metric):
    """The mean of what training makes small: cross-entropy in nats, or squared error; 0 and above."""

    name = "loss"
    tasks = ("classification", "next_token", "regression")
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
    tasks = ("classification", "next_token")
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


@register
class AreaUnderRoc(Metric):
    """How often an example of a label is given a higher probability of it than one of another, 0 to 1.

    The area under the receiver operating characteristic; ties count half. With two labels it is that of
    label 1. With more it is the mean over the labels that occur among the targets, each against the rest
    ("macro, one versus rest"; where all occur, scikit-learn's number). 0.5 where one label alone occurs:
    there is nothing to be told apart.
    """

    name = "auroc"
    needs_probabilities = True

    def of(self, found: Predictions) -> float:
        """Return the area."""
        assert found.probabilities is not None
        present = np.unique(found.targets)
        if len(present) < 2:
            return 0.5
        labels = [1] if found.probabilities.shape[1] == 2 else present.tolist()
        areas = [_area(found.probabilities[:, k], found.targets == k) for k in labels]
        return float(np.mean(areas))


@register
class Perplexity(Metric):
    """The exponential of the mean cross-entropy a token, 1 and above (e**700 at most)."""

    name = "perplexity"
    higher_is_better = False
    tasks = ("next_token",)

    def of(self, found: Predictions) -> float:
        """Return the exponential."""
        return math.exp(min(700.0, float(found.losses.mean())))


@register
class MeanAbsoluteError(Metric):
    """The mean distance between the predicted number and the right one, 0 and above."""

    name = "mae"
    higher_is_better = False
    tasks = ("regression",)

    def of(self, found: Predictions) -> float:
        """Return the mean over examples and values."""
        return float(np.abs(found.predicted - found.targets).mean())


@register
class RootMeanSquaredError(Metric):
    """The square root of the mean squared error, over examples and values; 0 and above."""

    name = "rmse"
    higher_is_better = False
    tasks = ("regression",)

    def of(self, found: Predictions) -> float:
        """Return the root."""
        return math.sqrt(float(np.square(found.predicted - found.targets).mean()))


@register
class R2(Metric):
    """The share of the targets' variance that predictions explain, 1 and below; the mean over values.

    Where all targets are equal, 1 if all predictions are right and else 0, as in scikit-learn.
    """

    name = "r2"
    tasks = ("regression",)

    def of(self, found: Predictions) -> float:
        """Return one minus the squared error over the squared distance from the mean."""
        targets = found.targets.reshape(len(found), -1).astype(np.float64)
        error = np.square(found.predicted.reshape(targets.shape) - targets).sum(axis=0)
        spread = np.square(targets - targets.mean(axis=0)).sum(axis=0)
        explained = 1 - error / np.where(spread > 0, spread, 1)
        return float(np.where(spread > 0, explained, error == 0).mean())


def _area(scores: npt.NDArray[np.float64], positive: npt.NDArray[np.bool_]) -> float:
    """Return the share of pairs of a positive and a negative that scores put in that order."""
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]  # equal scores share their mean rank
    num = int(positive.sum())
    wins = float(ranks[positive].sum()) - num * (num + 1) / 2
    return wins / (num * (len(scores) - num))
