"""Friedman's regression, drawn in a moment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedexp.data.examples import Examples, Spec
from fedexp.datasets.base import Dataset, register


@register
@dataclass(frozen=True)
class ToyRegression(Dataset):
    """Ten numbers of which five matter: Friedman, Annals of Statistics 19 (1991), "Friedman #1".

    With x uniform in [0, 1], the target is 10 sin(pi x0 x1) + 20 (x2 - 0.5)^2 + 10 x3 + 5 x4, plus normal
    noise of deviation 1, divided by 5, which is about the targets' own deviation. Always the same ones.
    """

    task = "regression"
    facts = Spec((10,), (), 2_000, 500, values=1)

    name: str = "toy_regression"

    def load(self) -> tuple[Examples, Examples]:
        """Draw the examples."""
        rng = np.random.default_rng(0)
        x = rng.random((2_500, 10))
        y = 10 * np.sin(np.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2
        y += 10 * x[:, 3] + 5 * x[:, 4] + rng.standard_normal(len(x))
        drawn = Examples(x.astype(np.float32), (y / 5).astype(np.float32))
        return drawn.subset(np.arange(2_000)), drawn.subset(np.arange(2_000, 2_500))
