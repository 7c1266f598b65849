"""Which of several labels an input has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fedexp.tasks.base import LABELS, Array, Facts, Grouping, Task, register

if TYPE_CHECKING:
    from torch import Tensor

MAX_LOSS = 1e6
"""Nats from which on a model has diverged; an untrained one has the logarithm of the labels' number."""


@register
class Classification(Task):
    """Targets are labels 0, 1, ... (int64, shape (N,)), outputs are logits, shape (n, num_classes).

    The loss is the mean cross-entropy in nats.
    """

    name = "classification"
    words = "classification"
    metrics = ("accuracy", "loss")
    headline = "accuracy"
    told_apart_by = LABELS
    group = "label"
    has_confusion = True

    def loss(self) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the cross-entropy."""
        from torch.nn import functional as F

        return F.cross_entropy

    def judge(self, outputs: Tensor, targets: Tensor, *, probabilities: bool) -> list[Tensor]:
        """Return the most probable labels, the cross-entropy of each example, and probabilities."""
        from torch.nn import functional as F

        losses = F.cross_entropy(outputs, targets, reduction="none")
        found = [outputs.argmax(1), losses.double()]
        if probabilities:
            found.append(outputs.double().softmax(1))
        return found

    def facts(self, inputs: Sequence[Array], targets: Sequence[Array]) -> Facts:
        """Call labels by their numbers."""
        highest = max(int(part.max()) for part in targets)
        return Facts(classes=tuple(str(label) for label in range(highest + 1)))

    def target_problem(self, inputs: Array, targets: Array) -> str | None:
        """Labels count from 0."""
        if targets.dtype != np.int64 or targets.ndim != 1 or targets.min() < 0:
            return f"labels 0, 1, ... as targets (int64, shape (N,)), got {targets.dtype}{targets.shape}"
        return None

    def range_problem(self, targets: Array, facts: Facts) -> str | None:
        """There are as many labels as classes."""
        if targets.max() >= len(facts.classes):
            return f"labels up to {targets.max()}; its page says {len(facts.classes)} classes"
        return None

    def grouping(self, train: Array, test: Array, classes: tuple[str, ...]) -> Grouping:
        """Labels are the groups."""
        return Grouping(train, test, list(classes))

    def group_words(self) -> dict[str, str]:
        """Return nothing: they are labels."""
        return {}

    def largest_loss(self, targets: Array) -> float:
        """Return a million nats."""
        return MAX_LOSS

    def described(self, lower_is_better: Sequence[str], *, confused: bool = True) -> dict[str, Any]:
        """Return nothing: a summary that names no task, as all did once, is of a classification."""
        return {} if confused else super().described(lower_is_better, confused=False)
