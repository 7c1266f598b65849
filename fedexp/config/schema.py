"""All options of an experiment.

The dataclasses are the schema of the YAML tree in ``conf/`` (``composition`` registers them with Hydra)
and, once filled and checked, the only form of the configuration that the rest of the package sees. This
module imports neither torch, ray nor hydra, so a bad configuration is refused at once.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import yaml

from fedexp import datasets, models, partitions, strategies
from fedexp.config import backend
from fedexp.config.backend import BackendConfig, RayBackend
from fedexp.config.clients import ClientsConfig
from fedexp.config.tracking import TrackingConfig
from fedexp.config.training import TrainingConfig
from fedexp.core.options import AUTO, one_of, ranged
from fedexp.core.registry import Registry
from fedexp.datasets import Dataset
from fedexp.datasets.mnist5k import Mnist5k
from fedexp.metrics import ALWAYS
from fedexp.models import Model
from fedexp.models.mlp import Mlp
from fedexp.partitions import Partition
from fedexp.partitions.iid import Iid
from fedexp.strategies import Strategy
from fedexp.strategies.fedavg import FedAvg


@dataclass(frozen=True)
class StopConfig:
    """Stop early after ``patience`` rounds in a row that improve ``metric`` by less than ``min_delta``.

    ``patience: null`` never stops early. The metric, one of ``metrics``, is the global model's on the
    whole test set.
    """

    metric: str = "accuracy"
    min_delta: float = ranged(0.001, ge=0)
    patience: int | None = ranged(None, ge=1)


@dataclass(frozen=True)
class CheckpointConfig:
    """When a run keeps what it needs to be resumed, in the folder ``checkpoint`` of its folder.

    ``every`` is a number of rounds; 0 never; ``auto`` after every round, but so far apart that it takes
    2 % of the time at most. The last round is always kept.
    """

    every: int | str = ranged(AUTO, ge=0)


@dataclass(frozen=True)
class Config:
    """One experiment; ``isolated_rounds`` replaces ``rounds`` where no client is federated.

    ``mode=partition`` shows who holds what and trains nothing. ``metrics`` are measured in addition to
    accuracy and loss. ``objective`` is what a sweeper such as Optuna works on: one of the metrics of the
    final models, ``best_accuracy`` or ``worst10`` (the mean accuracy of the worst tenth of clients).
    """

    name: str = "fedexp"
    mode: str = one_of("train", "train", "partition")
    seed: int = ranged(0, ge=0)
    rounds: int = ranged(3, ge=1)
    isolated_rounds: int | None = ranged(None, ge=1)
    metrics: list[str] = field(default_factory=lambda: list(ALWAYS))
    objective: str = "accuracy"
    dataset: Dataset = field(default_factory=Mnist5k)
    partition: Partition = field(default_factory=Iid)
    model: Model = field(default_factory=Mlp)
    strategy: Strategy = field(default_factory=FedAvg)
    clients: ClientsConfig = field(default_factory=ClientsConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    stop: StopConfig = field(default_factory=StopConfig)
    backend: BackendConfig = field(default_factory=RayBackend)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)

    @property
    def num_rounds(self) -> int:
        """Rounds that this run trains for."""
        isolated = self.strategy.kind == strategies.ISOLATED
        return self.isolated_rounds if isolated and self.isolated_rounds else self.rounds

    @property
    def measured(self) -> list[str]:
        """The metrics of this run: accuracy, loss, then the others in the order given."""
        return list(dict.fromkeys([*ALWAYS, *self.metrics]))


GROUPS: dict[str, Registry[Any]] = {
    "dataset": datasets.REGISTRY,
    "partition": partitions.REGISTRY,
    "model": models.REGISTRY,
    "strategy": strategies.REGISTRY,
    "backend": backend.REGISTRY,
}
"""Config group -> the registry of its choices."""


def config_bytes(config: Config) -> bytes:
    """Render what config.yaml holds."""
    return yaml.safe_dump(asdict(config), sort_keys=False).encode()
