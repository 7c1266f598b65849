"""Deal training images to clients: labels in, one index array per client out.

Pure NumPy, so that equal configurations give equal partitions on every machine (of one version of
NumPy: its generators may change between versions). A new partition is a function here, a dataclass in
:mod:`fedexp.partitions.options`, and a line in :data:`PARTITIONERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from fedexp.core.options import FedexpError
from fedexp.core.seeding import derive_rng, derive_seed
from fedexp.data.partition import Indices, Partition, apportion, torch_random_permutation
from fedexp.partitions.flwr_datasets import deal_by_flwr_datasets
from fedexp.partitions.options import (
    ClassesPartition,
    DirichletBalancedPartition,
    DirichletPartition,
    ExcludePartition,
    FeatureNoisePartition,
    FlwrDatasetsPartition,
    IidPartition,
    PartitionConfig,
    QuantityPartition,
    ShardsPartition,
)

MAX_DRAWS = 1_000
"""Draws of sizes after which ``min_size`` counts as out of reach."""

Labels = npt.NDArray[np.int64]


def make_partition(
    config: PartitionConfig, labels: Labels, num_clients: int, seed: int
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
        FedexpError: If a client would be left without an image, or the labels do not allow for what
            the options ask.
    """
    partition = PARTITIONERS[type(config)](config, labels, num_clients, seed)
    empty = np.flatnonzero(partition.sizes == 0)
    if len(empty):
        raise FedexpError(
            f"partition={config.name} leaves {len(empty)} of {num_clients} clients without an image "
            f"(the first is client {empty[0]}): fewer clients (clients.num) or another partition"
        )
    return partition


def _rng(config: PartitionConfig, seed: int) -> np.random.Generator:
    return derive_rng(seed if config.seed is None else config.seed, "partition")


def _iid(config: IidPartition, labels: Labels, num_clients: int, seed: int) -> Partition:
    """Split uniformly at random into equal parts (sizes differ by one image at most)."""
    order = _rng(config, seed).permutation(len(labels)).astype(np.int64)
    if config.samples_per_client is not None:
        order = order[: config.samples_per_client * num_clients]
    return Partition.of(np.array_split(order, num_clients))


def _exclude(config: ExcludePartition, labels: Labels, num_clients: int, seed: int) -> Partition:
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


def _dirichlet(
    config: DirichletPartition, labels: Labels, num_clients: int, seed: int
) -> Partition:
    """Split every label over the clients in shares drawn from Dir(alpha, ..., alpha).

    The variant of Yurochkin et al. (arXiv 1905.12022) and NIID-Bench (Li et al., arXiv 2102.02079): one
    draw per label, over clients, so that sizes differ as well as labels. Hsu et al. (arXiv 1909.06335)
    draw once per client, over labels; for that see :func:`_dirichlet_balanced`. Shares become whole
    images by largest remainder. All labels are drawn anew until every client has ``min_size``.
    """
    rng = _rng(config, seed)
    pools = [rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    concentration = np.full(num_clients, config.alpha)

    def draw() -> Indices:
        return np.stack([apportion(len(pool), rng.dirichlet(concentration)) for pool in pools])

    return _deal(pools, _until_large_enough(config, num_clients, draw))


def _quantity(config: QuantityPartition, labels: Labels, num_clients: int, seed: int) -> Partition:
    """Split uniformly at random into sizes drawn from Dir(alpha, ..., alpha) over clients.

    NIID-Bench's quantity skew (arXiv 2102.02079); sizes are drawn anew until every client has
    ``min_size``.
    """
    rng = _rng(config, seed)
    pool = rng.permutation(len(labels))
    concentration = np.full(num_clients, config.alpha)

    def draw() -> Indices:
        return apportion(len(pool), rng.dirichlet(concentration))[None]

    return _deal([pool], _until_large_enough(config, num_clients, draw))


def _until_large_enough(
    config: DirichletPartition | QuantityPartition, num_clients: int, draw: Callable[[], Indices]
) -> Indices:
    """Draw counts, shape (num_pools, num_clients), until the smallest client has ``min_size``."""
    best = 0
    for _ in range(MAX_DRAWS):
        counts = draw()
        smallest = int(counts.sum(axis=0).min())
        if smallest >= config.min_size:
            return counts
        best = max(best, smallest)
    raise FedexpError(
        f"partition={config.name}: none of {MAX_DRAWS:,} draws gave every client partition.min_size="
        f"{config.min_size} images at partition.alpha={config.alpha} and clients.num={num_clients} "
        f"(at best the smallest had {best}): a larger alpha, a smaller min_size or fewer clients"
    )


def _deal(pools: list[Indices], counts: Indices) -> Partition:
    """Give client ``k`` the next ``counts[p, k]`` images of every pool ``p``."""
    pieces = [np.split(pool, np.cumsum(row)[:-1]) for pool, row in zip(pools, counts, strict=True)]
    return Partition.of([np.concatenate(of_client) for of_client in zip(*pieces, strict=True)])


def _dirichlet_balanced(
    config: DirichletBalancedPartition, labels: Labels, num_clients: int, seed: int
) -> Partition:
    """Give clients equal sizes (they differ by one at most) and label mixes drawn from a Dirichlet.

    Hsu et al. (arXiv 1909.06335): a client's mix of labels is a draw from Dir(a p), where p is the
    training set's own mix. Their ``a`` is ``alpha`` times the number of labels here, so that ``alpha``
    is the concentration per label, as in ``dirichlet``. Images are taken without replacement, client
    by client in random order; where a label runs out, the rest of the client's images comes from the
    labels that are left, in proportion to its mix. The last clients therefore depart from their draw.
    """
    rng = _rng(config, seed)
    pools = [rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    left = np.array([len(pool) for pool in pools])
    concentration = config.alpha * len(pools) * left / len(labels)
    mixes = rng.dirichlet(concentration, num_clients)
    sizes = np.diff(np.arange(num_clients + 1) * len(labels) // num_clients)
    counts = np.zeros((len(pools), num_clients), dtype=np.int64)
    for client in rng.permutation(num_clients):
        counts[:, client] = _take(sizes[client], mixes[client], left)
        left = left - counts[:, client]
    return _deal(pools, counts)


def _take(size: int, mix: npt.NDArray[np.float64], left: Indices) -> Indices:
    """Take ``size`` images in proportion to ``mix``, of each label at most what is left of it."""
    taken = np.zeros_like(left)
    while size > taken.sum():
        weights = np.where(left > taken, mix, 0.0)
        if not weights.any():  # of the labels in the mix none is left
            weights = (left - taken).astype(np.float64)
        taken = np.minimum(left, taken + apportion(size - taken.sum(), weights))
    return taken


def _shards(config: ShardsPartition, labels: Labels, num_clients: int, seed: int) -> Partition:
    """Sort by label, cut into equal shards and deal every client as many of them, at random.

    McMahan et al., AISTATS 2017, arXiv 1602.05629 (two shards a client). Images of one label come in
    random order; the shards' sizes differ by one at most.
    """
    rng = _rng(config, seed)
    order = rng.permutation(len(labels))
    by_label = order[np.argsort(labels[order], kind="stable")]
    shards = np.array_split(by_label, num_clients * config.shards_per_client)
    hands = rng.permutation(len(shards)).reshape(num_clients, config.shards_per_client)
    return Partition.of([np.concatenate([shards[shard] for shard in hand]) for hand in hands])


def _classes(config: ClassesPartition, labels: Labels, num_clients: int, seed: int) -> Partition:
    """Give every client exactly k labels, and share a label's images equally among its holders.

    NIID-Bench's "#C = k" (Li et al., arXiv 2102.02079). As in its code, labels are first dealt in turn,
    so that each has a holder if there are enough places, and the rest of the k is drawn at random.
    With fewer places than labels (num_clients * k), the images of labels that nobody holds belong to
    no client.

    Raises:
        FedexpError: If fewer than k labels have images, or a label has more holders than images.
    """
    rng, k = _rng(config, seed), config.classes_per_client
    present = np.unique(labels)
    if k > len(present):
        raise FedexpError(
            f"partition.classes_per_client must be <= {len(present)}, the labels that have images, "
            f"got {k}"
        )
    in_turn = rng.permutation(present)
    held: list[list[int]] = []
    for client in range(num_clients):
        own = in_turn[client % len(present) :: num_clients][:k]
        others = rng.permutation(np.setdiff1d(present, own))
        held.append([*own.tolist(), *others[: k - len(own)].tolist()])
    parts: list[list[Indices]] = [[] for _ in range(num_clients)]
    for label in present.tolist():
        holders = [client for client in range(num_clients) if label in held[client]]
        pool = rng.permutation(np.flatnonzero(labels == label))
        if len(pool) < len(holders):
            raise FedexpError(
                f"partition=classes: {len(holders)} clients hold label {label}, which has "
                f"{len(pool)} images: fewer clients (clients.num) or a smaller "
                f"partition.classes_per_client (now {k})"
            )
        for client, piece in zip(holders, np.array_split(pool, max(1, len(holders))), strict=False):
            parts[client].append(piece)
    return Partition.of([np.concatenate(part) for part in parts])


def _feature_noise(
    config: FeatureNoisePartition, labels: Labels, num_clients: int, seed: int
) -> Partition:
    """Split as ``iid`` does; :mod:`fedexp.partitions.feature_noise` says what happens to the pixels."""
    return _iid(IidPartition(seed=config.seed), labels, num_clients, seed)


PARTITIONERS: dict[type[PartitionConfig], Callable[[Any, Any, int, int], Partition]] = {
    IidPartition: _iid,
    ExcludePartition: _exclude,
    DirichletPartition: _dirichlet,
    DirichletBalancedPartition: _dirichlet_balanced,
    ShardsPartition: _shards,
    ClassesPartition: _classes,
    QuantityPartition: _quantity,
    FeatureNoisePartition: _feature_noise,
    FlwrDatasetsPartition: deal_by_flwr_datasets,
}
