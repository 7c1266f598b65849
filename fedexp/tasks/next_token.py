"""Which token comes next, at every place of a text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from fedexp.tasks.base import IGNORED, Array, Facts, Task, register, token_problem

if TYPE_CHECKING:
    from torch import Tensor

MAX_LOSS = 1e6
"""Nats a token from which on a model has diverged."""


@register
class NextToken(Task):
    """Inputs are tokens (int32 or int64, shape (N, T)), and so are targets (int64, shape (N, T)).

    ``targets[i, t]`` is what comes after ``inputs[i, :t + 1]``; -100 where nothing is to be predicted.
    Outputs are logits, shape (n, T, vocabulary). The loss is the mean cross-entropy over all places of a
    batch that count, in nats a token; so are accuracy and perplexity over places, not over texts.
    """

    name = "next_token"
    words = "the prediction of the next token"
    metrics = ("accuracy", "loss", "perplexity")
    headline = "accuracy"
    axes: ClassVar[Mapping[str, str]] = {
        "accuracy": "accuracy (share of all test tokens)",
        "loss": "loss (nats a test token)",
        "perplexity": "perplexity (all test tokens)",
    }

    def loss(self) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the cross-entropy over the places that count."""
        from torch.nn import functional as F

        def over_places(outputs: Tensor, targets: Tensor) -> Tensor:
            return F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)

        return over_places

    def counted(self, targets: Tensor) -> int:
        """Return the places that count."""
        return int((targets != IGNORED).sum())

    def judge(self, outputs: Tensor, targets: Tensor, *, probabilities: bool) -> list[Tensor]:
        """Return token, cross-entropy and probabilities of every place that counts."""
        from torch.nn import functional as F

        counts = targets != IGNORED
        logits = outputs[counts]
        losses = F.cross_entropy(logits, targets[counts], reduction="none")
        found = [logits.argmax(1), losses.double()]
        if probabilities:
            found.append(logits.double().softmax(1))
        return found

    def expected(self, targets: Array) -> tuple[Array, npt.NDArray[np.int64] | None]:
        """Return the tokens that count, text after text."""
        counts = targets != IGNORED
        offsets = np.zeros(len(targets) + 1, dtype=np.int64)
        np.cumsum(counts.sum(axis=1), out=offsets[1:])
        return targets[counts], offsets

    def output_shape(self, count: int, shape: tuple[int, ...], outputs: int) -> tuple[int, ...]:
        """A prediction for every place."""
        return count, *shape, outputs

    def facts(self, inputs: Sequence[Array], targets: Sequence[Array]) -> Facts:
        """The vocabulary ends with the highest token that occurs."""
        return Facts(vocabulary=1 + max(int(part.max()) for part in (*inputs, *targets)))

    def target_problem(self, inputs: Array, targets: Array) -> str | None:
        """Targets are like inputs, and of every text one at least counts."""
        counts = targets != IGNORED
        if targets.dtype != np.int64 or targets.shape != inputs.shape or targets.ndim != 2:
            return (
                "a target for every token (int64, shape (N, T) as the inputs), got "
                f"{targets.dtype}{targets.shape} for {inputs.shape}"
            )
        problem = token_problem(np.where(counts, targets, 0), "targets")
        if problem is None and not counts.any(axis=1).all():
            first = int(np.flatnonzero(~counts.any(axis=1))[0])
            return (
                f"a target in every row, got {IGNORED} (nothing to predict) throughout row {first}"
            )
        return problem

    def range_problem(self, targets: Array, facts: Facts) -> str | None:
        """Tokens are in the vocabulary."""
        if targets.max() >= facts.vocabulary:
            return (
                f"targets up to {targets.max()}; its page says a vocabulary of {facts.vocabulary}"
            )
        return None

    def largest_loss(self, targets: Array) -> float:
        """Return a million nats."""
        return MAX_LOSS
