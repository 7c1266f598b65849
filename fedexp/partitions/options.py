"""Partitions: how the training images can be dealt to clients."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fedexp.core.options import ranged


@dataclass(frozen=True)
class PartitionConfig:
    """How the training images are dealt to clients; ``seed: null`` follows the experiment's seed."""

    name: str = "iid"
    seed: int | None = ranged(None, ge=0)

    @property
    def label(self) -> str:
        """A short name with the option that matters most, for lists of runs."""
        return self.name


@dataclass(frozen=True)
class IidPartition(PartitionConfig):
    """A uniform random split; ``samples_per_client: null`` deals every image."""

    samples_per_client: int | None = ranged(None, ge=1)


@dataclass(frozen=True)
class ExcludePartition(PartitionConfig):
    """A uniform random split from which client ``k`` then loses the labels ``exclude[k]``."""

    name: str = "exclude"
    exclude: list[list[int]] = field(default_factory=list)


@dataclass(frozen=True)
class DirichletPartition(PartitionConfig):
    """Label skew: every label is split over the clients by a draw from a Dirichlet distribution."""

    name: str = "dirichlet"
    alpha: float = ranged(0.5, gt=0, le=1e6)
    min_size: int = ranged(10, ge=1)

    @property
    def label(self) -> str:
        """As in ``dir0.3``."""
        return f"dir{self.alpha:g}"


@dataclass(frozen=True)
class DirichletBalancedPartition(PartitionConfig):
    """Label skew at equal sizes: every client's mix of labels is a draw from a Dirichlet."""

    name: str = "dirichlet_balanced"
    alpha: float = ranged(0.5, gt=0, le=1e6)

    @property
    def label(self) -> str:
        """As in ``dirbal0.3``."""
        return f"dirbal{self.alpha:g}"


@dataclass(frozen=True)
class ShardsPartition(PartitionConfig):
    """Images sorted by label, cut into equal shards; every client holds ``shards_per_client``."""

    name: str = "shards"
    shards_per_client: int = ranged(2, ge=1)

    @property
    def label(self) -> str:
        """As in ``shards2``."""
        return f"shards{self.shards_per_client}"


@dataclass(frozen=True)
class ClassesPartition(PartitionConfig):
    """Every client holds images of exactly ``classes_per_client`` labels."""

    name: str = "classes"
    classes_per_client: int = ranged(2, ge=1)

    @property
    def label(self) -> str:
        """As in ``classes2``."""
        return f"classes{self.classes_per_client}"


@dataclass(frozen=True)
class QuantityPartition(PartitionConfig):
    """Size skew: the clients' sizes are a draw from a Dirichlet, their labels are not skewed."""

    name: str = "quantity"
    alpha: float = ranged(0.5, gt=0, le=1e6)
    min_size: int = ranged(10, ge=1)

    @property
    def label(self) -> str:
        """As in ``quantity0.5``."""
        return f"quantity{self.alpha:g}"


@dataclass(frozen=True)
class FeatureNoisePartition(PartitionConfig):
    """A uniform random split; client ``k`` of ``n`` sees pixels through noise of its own strength.

    ``noise_std`` is the standard deviation at the last client, on pixels scaled to [0, 1].
    """

    name: str = "feature_noise"
    noise_std: float = ranged(0.3, gt=0)

    @property
    def label(self) -> str:
        """As in ``noise0.3``."""
        return f"noise{self.noise_std:g}"


@dataclass(frozen=True)
class FlwrDatasetsPartition(PartitionConfig):
    """A partitioner of the package flwr-datasets, by its name and the options of its constructor."""

    name: str = "flwr_datasets"
    partitioner: str = "IidPartitioner"
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The partitioner's name."""
        return self.partitioner
