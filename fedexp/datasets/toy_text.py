"""Texts of which each letter follows from the two before, drawn in a moment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedexp.data.examples import Examples, Spec
from fedexp.datasets.base import Dataset, register
from fedexp.tasks import TOKENS

VOCABULARY, LENGTH = 12, 40


@register
@dataclass(frozen=True)
class ToyText(Dataset):
    """Texts of 40 letters; how likely each of 12 is depends on the two before it.

    Who knows how the texts are drawn foretells about 74 % of the letters, and who knows one letter of
    the two about 35 %. Always the same examples.
    """

    task = "next_token"
    kind = TOKENS
    facts = Spec((LENGTH,), (), 1_000, 250, vocabulary=VOCABULARY)

    name: str = "toy_text"

    def load(self) -> tuple[Examples, Examples]:
        """Draw the texts, letter by letter."""
        rng = np.random.default_rng(0)
        odds = rng.dirichlet(np.full(VOCABULARY, 0.05), (VOCABULARY, VOCABULARY)).cumsum(axis=2)
        texts = rng.integers(0, VOCABULARY, (1_250, LENGTH + 1))
        for place in range(2, LENGTH + 1):
            chance = rng.random((len(texts), 1))
            likely = odds[texts[:, place - 2], texts[:, place - 1]]
            texts[:, place] = (likely < chance).sum(axis=1).clip(max=VOCABULARY - 1)
        drawn = Examples(texts[:, :-1].astype(np.int32), texts[:, 1:].astype(np.int64))
        return drawn.subset(np.arange(1_000)), drawn.subset(np.arange(1_000, 1_250))
