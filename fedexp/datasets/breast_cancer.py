"""Breast cancer Wisconsin (diagnostic)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedexp.datasets.base import register
from fedexp.datasets.tables import Table, TableDataset


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
        from sklearn.datasets import load_breast_cancer

        inputs, targets = load_breast_cancer(return_X_y=True)
        is_number = np.ones(inputs.shape[1], dtype=bool)
        return Table(inputs, targets.astype(np.int64), is_number)
