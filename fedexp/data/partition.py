"""Who holds which image, and what follows from it for the test images.

Pure NumPy; :mod:`fedexp.partitions.partitioners` makes the partitions.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedexp.core.seeding import derive_rng
from fedexp.partitions.options import ExcludePartition, PartitionConfig

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Partition:
    """The images of every client, in one flat array so that a thousand clients cost one copy.

    Attributes:
        indices: Positions in the dataset, all clients' one after another, shape (total,).
        offsets: Client ``k`` holds ``indices[offsets[k]:offsets[k + 1]]``; shape (num_clients + 1,).
    """

    indices: Indices
    offsets: Indices

    @classmethod
    def of(cls, parts: Sequence[Indices]) -> Partition:
        """Build a partition from one index array per client."""
        offsets = np.cumsum([0, *(len(part) for part in parts)], dtype=np.int64)
        return cls(np.concatenate(parts).astype(np.int64), offsets)

    @property
    def num_clients(self) -> int:
        """Number of clients."""
        return len(self.offsets) - 1

    @property
    def sizes(self) -> Indices:
        """Images per client, shape (num_clients,)."""
        return np.diff(self.offsets)

    @property
    def sha256(self) -> str:
        """Hash of who holds what, equal on every machine for equal partitions."""
        digest = hashlib.sha256()
        for array in (self.offsets, self.indices):
            digest.update(array.astype("<i8").tobytes())
        return digest.hexdigest()

    def client(self, partition_id: int) -> Indices:
        """Return the image positions that one client holds."""
        return self.indices[self.offsets[partition_id] : self.offsets[partition_id + 1]]

    def class_counts(self, labels: npt.NDArray[np.int64], num_classes: int) -> Indices:
        """Count labels per client, shape (num_clients, num_classes)."""
        client_of = np.repeat(np.arange(self.num_clients), self.sizes)
        flat = client_of * num_classes + labels[self.indices]
        counts = np.bincount(flat, minlength=self.num_clients * num_classes)
        return counts.reshape(self.num_clients, num_classes)


def apportion(total: int, weights: npt.NDArray[Any]) -> Indices:
    """Divide ``total`` images in proportion to weights, by largest remainder.

    Args:
        total: Images to divide, >= 0.
        weights: Shape (n,), >= 0, of which at least one is positive.

    Returns:
        Counts that sum to ``total``, shape (n,); equal remainders go to the lower position.
    """
    # fsum rounds once, whatever the order in which a processor would add.
    exact = total * weights / math.fsum(weights)
    counts = np.floor(exact).astype(np.int64)
    counts[np.argsort(counts - exact, kind="stable")[: total - counts.sum()]] += 1
    return counts


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


def match_test(
    train: Partition,
    train_labels: npt.NDArray[np.int64],
    test_labels: npt.NDArray[np.int64],
    num_classes: int,
    seed: int,
) -> Partition:
    """Deal the test images so that every client's share has the label mix of its training images.

    Test images of a label go to clients in proportion to their training images of it, by largest
    remainder; no test image is given twice. Of equal remainders chance decides, for every label anew:
    among many clients of few images, the first would otherwise get most of the test images.

    Args:
        train: Who holds which training image.
        train_labels: Shape (num_train,).
        test_labels: Shape (num_test,).
        num_classes: Number of labels.
        seed: Decides which of the test images of a label a client gets, and who of equals gets one more.

    Returns:
        A partition of the test set; a client with few images may get none.
    """
    rng = derive_rng(seed, "client_test")
    counts = train.class_counts(train_labels, num_classes)
    pools = [rng.permutation(np.flatnonzero(test_labels == label)) for label in range(num_classes)]
    parts: list[list[Indices]] = [[] for _ in range(train.num_clients)]
    for pool, held in zip(pools, counts.T, strict=True):
        if held.sum() == 0:
            continue
        order = rng.permutation(train.num_clients)
        share = np.empty_like(held)
        share[order] = apportion(len(pool), held[order])
        for client, piece in enumerate(np.split(pool, np.cumsum(share)[:-1])):
            parts[client].append(piece)
    return Partition.of([np.sort(np.concatenate(part)) for part in parts])


def test_subsets(config: PartitionConfig) -> dict[str, list[int]]:
    """Name the groups of labels on which the partition makes the test set worth splitting.

    Returns:
        Labels joined by hyphens -> the labels, for instance ``{"1-3-7": [1, 3, 7]}``.
    """
    if not isinstance(config, ExcludePartition):
        return {}
    groups = (sorted(set(labels)) for labels in config.exclude if labels)
    return {"-".join(map(str, labels)): labels for labels in groups}
