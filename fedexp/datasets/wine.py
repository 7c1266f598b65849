"""Wine: three growers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedexp.datasets.base import register
from fedexp.datasets.tables import Table, TableDataset, bundled


@register
@dataclass(frozen=True)
class Wine(TableDataset):
    """178 wines of one region, 13 measurements each: which of three growers made them.

    Aeberhard and Forina, UCI Machine Learning Repository, 1991 (CC BY 4.0); it comes with scikit-learn,
    which every installation has.
    """

    classes = ("grower 1", "grower 2", "grower 3")

    name: str = "wine"

    def table(self) -> Table:
        """Read scikit-learn's copy."""
        inputs, targets = bundled(self.name, "load_wine")
        is_number = np.ones(inputs.shape[1], dtype=bool)
        return Table(inputs, targets.astype(np.int64), is_number)
