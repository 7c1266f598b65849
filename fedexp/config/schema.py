"""What an experiment can be told: frozen dataclasses, their ranges, and the errors they raise.

The dataclasses are the schema of the YAML tree in ``conf/`` (registered in Hydra's ConfigStore by
``composition``) and, once filled and checked, the only form of the configuration that the
rest of the package sees. This module imports neither torch, ray nor hydra, so a bad configuration is
refused at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fedexp.config.clients import ClientsConfig, TrainingConfig
from fedexp.config.tracking import TrackingConfig
from fedexp.core.options import AUTO, entries, one_of, ranged
from fedexp.datasets.options import (
    DATASET_SPECS,
    CifarDataset,
    DatasetConfig,
    EmnistDataset,
    MlpModel,
    ModelConfig,
)
from fedexp.partitions.options import IidPartition, PartitionConfig
from fedexp.strategies.options import FedAvgStrategy, LocalOnlyStrategy, StrategyConfig


@dataclass(frozen=True)
class StopConfig:
    """Stop early after ``patience`` rounds in a row that improve ``metric`` by less than ``min_delta``.

    ``patience: null`` never stops early. The metric is the global model's on the whole test set.
    """

    metric: str = one_of("accuracy", "accuracy", "loss")
    min_delta: float = ranged(0.001, ge=0)
    patience: int | None = ranged(None, ge=1)


@dataclass(frozen=True)
class BackendConfig:
    """Where clients run. ``threads`` is per process; 1 is fastest for small models."""

    name: str = "ray"
    device: str = one_of(AUTO, AUTO, "cpu", "cuda")
    threads: int = ranged(1, ge=1)


@dataclass(frozen=True)
class InlineBackend(BackendConfig):
    """In this process, one client after another."""

    name: str = "inline"


@dataclass(frozen=True)
class RayBackend(BackendConfig):
    """On Ray; ``workers: null`` is one per ``num_cpus_per_worker`` CPUs, at most one per client."""

    workers: int | None = ranged(None, ge=1)
    num_cpus_per_worker: float = ranged(1.0, gt=0)
    num_gpus_per_worker: float = ranged(0.0, ge=0)
    address: str | None = None


@dataclass(frozen=True)
class FlowerBackend(RayBackend):
    """On Flower's own Simulation Runtime: slower, the reference for the other two."""

    name: str = "flower"


@dataclass(frozen=True)
class Config:
    """One experiment; ``isolated_rounds`` replaces ``rounds`` where no client is federated.

    ``mode=partition`` shows who holds what and trains nothing. ``objective`` is the figure of the final
    models that a sweeper such as Optuna is told (:func:`fedexp.federation.conclusion.objective`).
    """

    name: str = "fedexp"
    mode: str = one_of("train", "train", "partition")
    seed: int = ranged(0, ge=0)
    rounds: int = ranged(3, ge=1)
    isolated_rounds: int | None = ranged(None, ge=1)
    objective: str = one_of("accuracy", "accuracy", "loss", "best_accuracy", "worst10")
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    partition: PartitionConfig = field(default_factory=IidPartition)
    model: ModelConfig = field(default_factory=MlpModel)
    strategy: StrategyConfig = field(default_factory=FedAvgStrategy)
    clients: ClientsConfig = field(default_factory=ClientsConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    stop: StopConfig = field(default_factory=StopConfig)
    backend: BackendConfig = field(default_factory=RayBackend)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    @property
    def num_rounds(self) -> int:
        """Rounds that this run trains for."""
        if isinstance(self.strategy, LocalOnlyStrategy) and self.isolated_rounds is not None:
            return self.isolated_rounds
        return self.rounds


SCHEMAS: dict[str, dict[str, type]] = {
    "dataset": {
        **dict.fromkeys(DATASET_SPECS, DatasetConfig),
        **dict.fromkeys(("cifar10", "cifar100"), CifarDataset),
        "emnist": EmnistDataset,
    },
    "partition": entries(PartitionConfig),
    "model": entries(ModelConfig),
    "strategy": entries(StrategyConfig),
    "clients": {"clients": ClientsConfig},
    "backend": entries(BackendConfig),
}
"""Group -> the name in YAML -> its dataclass."""
