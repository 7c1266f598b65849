"""Deal training images to clients: labels in, one index array per client out.

Pure NumPy, so that equal configurations give equal partitions on every machine. A new partition is a
function here, a dataclass in :mod:`fedexp.config_partition`, and a line in :data:`PARTITIONERS`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedexp.config_partition import ExcludePartition, IidPartition, PartitionConfig
from fedexp.options import FedexpError
from fedexp.seeding import derive_rng, derive_seed

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


def make_partition(
    config: PartitionConfig, labels: npt.NDArray[np.int64], num_clients: int, seed: int
) -> Partition:
    """Deal images to clients.

    Args:
        config: Which partition, and its options. ``config.seed`` wins over ``seed`` when set.
        labels: Label of every training image, shape (num_images,).
        num_clients: Number of clients, >= 1.
        seed: The experiment's seed.

    Returns:
        A partition in which no image belongs to two clients, and every client holds at least one.

    Raises:
        FedexpError: If a client would be left without an image.
    """
    partition = PARTITIONERS[type(config)](config, labels, num_clients, seed)
    empty = np.flatnonzero(partition.sizes == 0)
    if len(empty):
        raise FedexpError(
            f"partition={config.name} leaves {len(empty)} of {num_clients} clients without an image "
            f"(the first is client {empty[0]}): fewer clients (clients.num) or another partition"
        )
    return partition


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


def _iid(
    config: IidPartition, labels: npt.NDArray[np.int64], num_clients: int, seed: int
) -> Partition:
    """Split uniformly at random into equal parts (sizes differ by one image at most)."""
    rng = derive_rng(seed if config.seed is None else config.seed, "partition")
    order = rng.permutation(len(labels)).astype(np.int64)
    if config.samples_per_client is not None:
        order = order[: config.samples_per_client * num_clients]
    return Partition.of(np.array_split(order, num_clients))


def _exclude(
    config: ExcludePartition, labels: npt.NDArray[np.int64], num_clients: int, seed: int
) -> Partition:
    """Split as ``torch.utils.data.random_split`` does, then take labels away from each client.

    With ``seed=42`` and the lists [1, 3, 7], [2, 5, 8], [4, 6, 9] this is the partition of the course
    lesson, image for image. The images taken away belong to no client.
    """
    split_seed = derive_seed(seed, "partition") >> 31 if config.seed is None else config.seed
    parts = np.array_split(torch_random_permutation(len(labels), split_seed), num_clients)
    kept = [
        part[~np.isin(labels[part], excluded)]
        for part, excluded in zip(parts, config.exclude, strict=True)
    ]
    return Partition.of(kept)


PARTITIONERS: dict[type[PartitionConfig], Callable[[Any, Any, int, int], Partition]] = {
    IidPartition: _iid,
    ExcludePartition: _exclude,
}


def match_test(
    train: Partition,
    train_labels: npt.NDArray[np.int64],
    test_labels: npt.NDArray[np.int64],
    num_classes: int,
    seed: int,
) -> Partition:
    """Deal the test images so that every client's share has the label mix of its training images.

    Test images of a label go to clients in proportion to their training images of it, by largest
    remainder; no test image is given twice.

    Args:
        train: Who holds which training image.
        train_labels: Shape (num_train,).
        test_labels: Shape (num_test,).
        num_classes: Number of labels.
        seed: Decides which of the test images of a label a client gets.

    Returns:
        A partition of the test set; a client with few images may get none.
    """
    rng = derive_rng(seed, "client_test")
    counts = train.class_counts(train_labels, num_classes)
    parts: list[list[Indices]] = [[] for _ in range(train.num_clients)]
    for label in range(num_classes):
        pool = rng.permutation(np.flatnonzero(test_labels == label))
        held = counts[:, label]
        if held.sum() == 0:
            continue
        exact = len(pool) * held / held.sum()
        share = np.floor(exact).astype(np.int64)
        share[np.argsort(share - exact, kind="stable")[: len(pool) - share.sum()]] += 1
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
