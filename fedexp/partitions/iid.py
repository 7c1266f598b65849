"""A uniform random split."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from fedexp.core.options import Plan, ranged
from fedexp.data.assignment import Indices
from fedexp.partitions.base import Labels, Partition, enough_examples, register
from fedexp.tasks import NOTHING


@register
@dataclass(frozen=True)
class Iid(Partition):
    """A uniform random split into equal parts (sizes differ by one example at most)."""

    deals_by = NOTHING

    name: str = "iid"
    samples_per_client: int | None = ranged(None, ge=1)
    """Training examples of a client; null deals every example."""

    def errors(self, plan: Plan) -> Iterable[str]:
        """There must be as many examples as are asked for."""
        if self.samples_per_client is not None:
            yield from enough_examples(plan, "samples_per_client", self.samples_per_client)

    def deal(self, labels: Labels, num_clients: int, seed: int) -> Sequence[Indices]:
        """Cut a random order into equal parts."""
        order = self.rng(seed).permutation(len(labels)).astype(np.int64)
        if self.samples_per_client is not None:
            order = order[: self.samples_per_client * num_clients]
        return np.array_split(order, num_clients)
