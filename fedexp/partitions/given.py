"""The data's own partition: every owner is a client, such as a hospital, a phone or a speaking role."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from fedexp.core.options import Plan
from fedexp.data.assignment import Indices
from fedexp.partitions.base import Labels, Partition, register
from fedexp.tasks import NOTHING


@register
@dataclass(frozen=True)
class Given(Partition):
    """Every client holds what is its own, and is tested on test examples of its own.

    ``clients.num`` is the number of owners that the data name, whatever it was set to. Nothing is drawn,
    so ``partition.seed`` decides only which examples are held out for validation.
    """

    deals_by = NOTHING
    by_owner = True

    name: str = "given"

    def errors(self, plan: Plan) -> Iterable[str]:
        """The data must say whose an example is."""
        if not plan.dataset.spec.owners:
            yield (
                f"partition=given: dataset={plan.dataset.name} does not say whose an example is; "
                "another partition, such as partition=iid, or dataset=files with your own data"
            )

    def deal(self, labels: Labels, num_clients: int, seed: int) -> Sequence[Indices]:
        """Give every owner its own."""
        return [np.flatnonzero(labels == owner) for owner in range(num_clients)]
