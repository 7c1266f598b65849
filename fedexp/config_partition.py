"""Partitions: how the training images can be dealt to clients."""

from __future__ import annotations

from dataclasses import dataclass, field

from fedexp.options import ranged


@dataclass(frozen=True)
class PartitionConfig:
    """How the training images are dealt to clients; ``seed: null`` follows the experiment's seed."""

    name: str = "iid"
    seed: int | None = ranged(None, ge=0)


@dataclass(frozen=True)
class IidPartition(PartitionConfig):
    """A uniform random split; ``samples_per_client: null`` deals every image."""

    samples_per_client: int | None = ranged(None, ge=1)


@dataclass(frozen=True)
class ExcludePartition(PartitionConfig):
    """A uniform random split from which client ``k`` then loses the labels ``exclude[k]``."""

    name: str = "exclude"
    exclude: list[list[int]] = field(default_factory=list)
