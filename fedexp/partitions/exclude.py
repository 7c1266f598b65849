"""A random split from which every client loses some labels: the course lesson's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from fedexp.core.options import Plan
from fedexp.core.seeding import derive_seed
from fedexp.data.assignment import Indices
from fedexp.partitions.base import Labels, Partition, register
from fedexp.tasks import LABELS


@register
@dataclass(frozen=True)
class Exclude(Partition):
    """A uniform random split from which client ``k`` then loses the labels ``exclude[k]``.

    The split is that of ``torch.utils.data.random_split``. With ``seed=42`` and the lists [1, 3, 7],
    [2, 5, 8], [4, 6, 9] this is the partition of the course lesson, image for image. The examples taken
    away belong to no client. The test set is also evaluated on each of these groups of labels.
    """

    deals_by = LABELS

    name: str = "exclude"
    exclude: list[list[int]] = field(default_factory=list)
    """Labels that client 0, 1, ... loses, a list each; clients without a list lose none."""

    def errors(self, plan: Plan) -> Iterable[str]:
        """There must be a list for every client, of labels that exist, and it must leave one."""
        num_clients, num_classes = plan.clients.num, plan.dataset.spec.num_classes
        if self.seed is not None and self.seed >= 2**32:
            yield f"partition.seed must be < {2**32} (torch's random_split), got {self.seed}"
        if len(self.exclude) != num_clients:
            yield (
                f"partition.exclude must hold one list of labels per client: clients.num="
                f"{num_clients}, got {len(self.exclude)} lists (another partition, such as "
                "partition=iid, fits any number of clients)"
            )
        owned = "; partition=given goes by whose the data are" if plan.dataset.spec.owners else ""
        for client, labels in enumerate(self.exclude):
            if not set(labels) <= set(range(num_classes)):
                yield (
                    f"partition.exclude[{client}] must hold labels from 0 to {num_classes - 1}, "
                    f"got {list(labels)}{owned}"
                )
            elif set(labels) == set(range(num_classes)):
                yield f"partition.exclude[{client}] leaves the client without a single label"

    def deal(self, labels: Labels, num_clients: int, seed: int) -> Sequence[Indices]:
        """Split at random, then take labels away from each client."""
        split_seed = derive_seed(seed, "partition") >> 31 if self.seed is None else self.seed
        parts = np.array_split(torch_random_permutation(len(labels), split_seed), num_clients)
        return [
            part[~np.isin(labels[part], excluded)]
            for part, excluded in zip(parts, self.exclude, strict=True)
        ]

    def subsets(self) -> dict[str, list[int]]:
        """Return the groups of labels that clients lose."""
        groups = (sorted(set(labels)) for labels in self.exclude if labels)
        return {"-".join(map(str, labels)): labels for labels in groups}


def torch_random_permutation(num_items: int, seed: int) -> Indices:
    """Return the permutation that ``torch.manual_seed(seed); torch.randperm(num_items)`` draws.

    Fisher-Yates on the raw 32-bit words of a Mersenne twister, seeded as torch seeds its own. It is
    repeated here because the lesson's split is defined by ``torch.utils.data.random_split``, and a
    partition must not change with torch's version.

    Args:
        num_items: Length of the permutation, in [0, 2**32).
        seed: In [0, 2**32).
    """
    generator = np.random.MT19937()
    generator._legacy_seeding(seed)
    words = generator.random_raw(num_items)
    targets = np.arange(num_items) + (words % np.arange(num_items, 0, -1, dtype=np.uint64)).astype(
        np.int64
    )
    order = list(range(num_items))
    for position, target in enumerate(targets.tolist()):
        order[position], order[target] = order[target], order[position]
    return np.array(order, dtype=np.int64)
