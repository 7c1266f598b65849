"""Label skew: few labels each, by shards of a sorted dataset."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from fedexp.core.options import Plan, ranged
from fedexp.data.assignment import Indices
from fedexp.partitions.base import Labels, Partition, enough_examples, register


@register
@dataclass(frozen=True)
class Shards(Partition):
    """Examples sorted by label, cut into equal shards; every client holds ``shards_per_client``.

    McMahan et al., AISTATS 2017, arXiv 1602.05629 (two shards a client). Examples of one label come in
    random order; the shards' sizes differ by one at most.
    """

    name: str = "shards"
    shards_per_client: int = ranged(2, ge=1)
    """Shards that a client holds."""

    @property
    def label(self) -> str:
        """As in ``shards2``."""
        return f"shards{self.shards_per_client}"

    def errors(self, plan: Plan) -> Iterable[str]:
        """A shard is one example at least."""
        return enough_examples(plan, "shards_per_client", self.shards_per_client)

    def deal(self, labels: Labels, num_clients: int, seed: int) -> Sequence[Indices]:
        """Sort by label, cut, and deal every client as many shards, at random."""
        rng = self.rng(seed)
        order = rng.permutation(len(labels))
        by_label = order[np.argsort(labels[order], kind="stable")]
        shards = np.array_split(by_label, num_clients * self.shards_per_client)
        hands = rng.permutation(len(shards)).reshape(num_clients, self.shards_per_client)
        return [np.concatenate([shards[shard] for shard in hand]) for hand in hands]
