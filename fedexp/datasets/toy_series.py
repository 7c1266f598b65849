"""Waves of four shapes, drawn in a moment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedexp.data.examples import Examples, Spec
from fedexp.datasets.base import Dataset, register


@register
@dataclass(frozen=True)
class ToySeries(Dataset):
    """Noisy waves of random length and phase, 64 steps each; their shape is to be told.

    Always the same examples.
    """

    kind = "series"
    facts = Spec((1, 64), ("sine", "square", "saw", "triangle"), 2_000, 500)

    name: str = "toy_series"

    def load(self) -> tuple[Examples, Examples]:
        """Draw the waves."""
        rng = np.random.default_rng(0)
        labels = np.arange(2_500) % 4
        rng.shuffle(labels)
        turns = rng.uniform(2, 5, (2_500, 1)) * np.arange(64) / 64 + rng.random((2_500, 1))
        part = turns % 1
        waves = np.stack(
            [
                np.sin(2 * np.pi * part),
                np.where(part < 0.5, 1.0, -1.0),
                2 * part - 1,
                4 * np.abs(part - 0.5) - 1,
            ]
        )
        shown = waves[labels, np.arange(2_500)] + 0.3 * rng.standard_normal((2_500, 64))
        drawn = Examples(shown[:, None].astype(np.float32), labels)
        return drawn.subset(np.arange(2_000)), drawn.subset(np.arange(2_000, 2_500))
