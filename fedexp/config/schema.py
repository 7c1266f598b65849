"""All options of an experiment.

The dataclasses are the schema of the YAML tree in ``conf/`` (``composition`` registers them with Hydra)
and, once filled and checked, the only form of the configuration that the rest of the package sees. This
module imports neither torch, ray nor hydra, so a bad configuration is refused at once.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import yaml

from fedexp import datasets, models, partitions, strategies, tasks
from fedexp.config import backend
from fedexp.config.backend import BackendConfig, RayBackend
from fedexp.config.clients import ClientsConfig
from fedexp.config.tracking import TrackingConfig
from fedexp.config.training import TrainingConfig
from fedexp.core.options import AUTO, one_of, ranged
from fedexp.core.registry import Registry
from fedexp.datasets import Dataset
from fedexp.datasets.mnist5k import Mnist5k
from fedexp.models import Model
from fedexp.models.mlp import Mlp
from fedexp.partitions import Partition
from fedexp.partitions.iid import Iid
from fedexp.strategies import Strategy
from fedexp.strategies.fedavg import FedAvg
from fedexp.tasks import Task


@dataclass(frozen=True)
class StopConfig:
    """Stop early after ``patience`` rounds that improve ``metric`` by less than ``min_delta``."""

    metric: str = AUTO
    """The global model's metric that must improve, one of ``metrics``: on what ``dataset.validation``
    holds out, where it also decides which round is the best, or else on the whole test set. auto is
    what the dataset's task is judged by, such as accuracy."""
    min_delta: float = ranged(0.001, ge=0)
    """What counts as an improvement, in the metric's unit."""
    patience: int | None = ranged(None, ge=1)
    """Tested rounds in a row without an improvement after which a run ends; null never ends it early."""


@dataclass(frozen=True)
class CheckpointConfig:
    """When a run keeps what it needs to be resumed, in the folder ``checkpoint`` of its folder.

    The last round is always kept.
    """

    every: int | str = ranged(AUTO, ge=0)
    """Rounds between checkpoints; 0 keeps none but the last; auto is after every round, but so far
    apart that it takes 2 % of the time at most."""


@dataclass(frozen=True)
class Config:
    """One experiment: what is run, for how long, and what is measured."""

    name: str = "fedexp"
    """The experiment's name, and that of its folder in results/."""
    mode: str = one_of("train", "train", "partition")
    """train runs the experiment; partition shows who holds what and trains nothing."""
    seed: int = ranged(0, ge=0)
    """Every random draw follows from it: the same seed gives the same results."""
    rounds: int = ranged(3, ge=1)
    """Rounds of federated training."""
    isolated_rounds: int | None = ranged(None, ge=1)
    """Rounds where no client is federated (strategy=local_only); null is as many as rounds."""
    metrics: list[str] = field(default_factory=list)
    """Measured after every round beside those of the dataset's task, such as accuracy and loss
    (fedexp help metrics). With none, those that the dataset's page names."""
    objective: str = AUTO
    """What a sweeper such as Optuna works on: a metric of the final models, best_accuracy, or
    worst10 (mean accuracy of the worst tenth of clients). With ``dataset.validation``, on held-out
    examples, of the best round. auto is what the dataset's task is judged by; where that is not
    accuracy, it takes accuracy's place in these words."""
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
    evaluate_every: int = ranged(1, ge=1)
    """Test the models after every so many rounds, and after the last one. Clients' own models take longer
    to test than to train where there are many of them."""
    save_every: int = ranged(0, ge=0)
    """Keep the models of every so many rounds in the folder ``models``; 0 keeps none. A multiple of
    evaluate_every."""

    def __post_init__(self) -> None:
        """Fill in what the task and the data decide, so that it stands in config.yaml."""
        if self.dataset.task not in tasks.choices():
            return  # validation says so
        found = self.task
        filled: dict[str, Any] = {
            "metrics": list(self.metrics) or [*found.metrics, *self.dataset.metrics],
            "objective": found.headline if self.objective == AUTO else self.objective,
        }
        if self.stop.metric == AUTO:
            filled["stop"] = replace(self.stop, metric=found.headline)
        if self.partition.by_owner and (owners := self.dataset.spec.owners):
            filled["clients"] = replace(self.clients, num=len(owners))
        for name, value in filled.items():
            object.__setattr__(self, name, value)  # frozen for everybody else

    @property
    def task(self) -> Task:
        """What the models are for."""
        return tasks.of(self.dataset)

    @property
    def num_rounds(self) -> int:
        """Rounds that this run trains for."""
        isolated = self.strategy.kind == strategies.ISOLATED
        return self.isolated_rounds if isolated and self.isolated_rounds else self.rounds

    def tests_after(self, server_round: int) -> bool:
        """Say whether models are tested after a round."""
        return server_round == self.num_rounds or server_round % self.evaluate_every == 0

    @property
    def measured(self) -> list[str]:
        """The metrics of this run: the task's, headline first, then the others in the order given."""
        words = (name for name in self.metrics if isinstance(name, str))  # no list can be looked up
        return list(dict.fromkeys([*self.task.metrics, *words]))


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
