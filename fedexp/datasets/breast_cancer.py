"""Breast cancer Wisconsin (diagnostic)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedexp.datasets.base import register
from fedexp.datasets.tables import Table, TableDataset, bundled


@register
@dataclass(frozen=True)
class BreastCancer(TableDataset):
    """569 tumours, 30 numbers each, from pictures of cell nuclei: malignant or benign.

    Wolberg, Street and Mangasarian, UCI Machine Learning Repository, 1995 (CC BY 4.0); it comes with
    scikit-learn, which every installation has.
    """

    metrics = ("auroc", "balanced_accuracy")
    classes = ("malignant", "benign")

    name: str = "breast_cancer"

    def table(self) -> Table:
        """Read scikit-learn's copy."""
        inputs, targets = bundled(self.name, "load_breast_cancer")
        is_number = np.ones(inputs.shape[1], dtype=bool)
        return Table(inputs, targets.astype(np.int64), is_number)
