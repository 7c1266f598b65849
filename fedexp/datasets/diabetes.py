"""Diabetes: how the disease progresses in a year."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedexp.datasets.base import register
from fedexp.datasets.tables import Table, TableDataset, bundled

MEAN, DEVIATION = 152.0, 77.0
"""Of the published targets, about; models predict what is left, in deviations."""


@register
@dataclass(frozen=True)
class Diabetes(TableDataset):
    """442 patients, 10 numbers each: how far the disease has progressed a year later.

    Efron, Hastie, Johnstone and Tibshirani, Annals of Statistics 32 (2004); the data state no licence.
    They come with scikit-learn, which every installation has. The target is the published number less
    152, divided by 77, so that an RMSE of 1 is about that of always predicting the mean.
    """

    task = "regression"

    name: str = "diabetes"

    def table(self) -> Table:
        """Read scikit-learn's copy."""
        inputs, targets = bundled(self.name, "load_diabetes", scaled=False)
        is_number = np.ones(inputs.shape[1], dtype=bool)
        return Table(inputs, ((targets - MEAN) / DEVIATION).astype(np.float32), is_number)
