"""Texts of four topics, drawn in a moment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedexp.data.examples import Examples, Spec
from fedexp.datasets.base import Dataset, register
from fedexp.tasks import TOKENS

VOCABULARY, LENGTH = 200, 20


@register
@dataclass(frozen=True)
class ToyWords(Dataset):
    """Texts of 20 words of a vocabulary of 200; which words are frequent depends on the topic.

    Always the same examples.
    """

    kind = TOKENS
    facts = Spec(
        (LENGTH,), ("letters", "numbers", "sports", "weather"), 2_000, 500, vocabulary=VOCABULARY
    )

    name: str = "toy_words"

    def load(self) -> tuple[Examples, Examples]:
        """Draw the words."""
        rng = np.random.default_rng(0)
        labels = np.arange(2_500) % 4
        rng.shuffle(labels)
        odds = rng.dirichlet(np.full(VOCABULARY, 0.5), 4).cumsum(axis=1)
        chance = rng.random((2_500, LENGTH))
        texts = np.stack(
            [np.searchsorted(odds[k], line) for k, line in zip(labels, chance, strict=True)]
        ).clip(max=VOCABULARY - 1)
        drawn = Examples(texts.astype(np.int32), labels)
        return drawn.subset(np.arange(2_000)), drawn.subset(np.arange(2_000, 2_500))
