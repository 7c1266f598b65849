"""What an experiment can be told: frozen dataclasses, their ranges, and the errors they raise.

The dataclasses are the schema of the YAML tree in ``conf/`` (registered in Hydra's ConfigStore by
:mod:`fedexp.composition`) and, once filled and checked, the only form of the configuration that the
rest of the package sees. This module imports neither torch, ray nor hydra, so a bad configuration is
refused at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

AUTO = "auto"


class ConfigError(Exception):
    """A configuration that cannot be run, with one line for every mistake in it."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = errors


class FedexpError(Exception):
    """A run that cannot go on; the message says what to do about it."""


def ranged(
    default: Any,
    *,
    gt: float | None = None,
    ge: float | None = None,
    lt: float | None = None,
    le: float | None = None,
) -> Any:
    """Declare a dataclass field whose number must lie in a range (``None`` values are exempt)."""
    bounds = [(">", gt), (">=", ge), ("<", lt), ("<=", le)]
    return field(default=default, metadata={"bounds": [b for b in bounds if b[1] is not None]})


def one_of(default: str, *choices: str) -> Any:
    """Declare a dataclass field that must be one of a few words."""
    return field(default=default, metadata={"choices": choices})


# --- datasets -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DatasetSpec:
    """What is known of a dataset before it is read.

    Attributes:
        shape: Channels, height and width of one image.
        num_classes: Number of labels; labels are 0 .. num_classes - 1.
        num_train: Training images.
        num_test: Test images.
        mean: Per channel, subtracted from pixels scaled to [0, 1].
        std: Per channel, divides what is left.
    """

    shape: tuple[int, int, int]
    num_classes: int
    num_train: int
    num_test: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


DATASET_SPECS = {
    "mnist5k": DatasetSpec((1, 28, 28), 10, 4_000, 1_000, (0.5,), (0.5,)),
    "mnist": DatasetSpec((1, 28, 28), 10, 60_000, 10_000, (0.5,), (0.5,)),
}


@dataclass(frozen=True)
class DatasetConfig:
    """Which images, and the folder that holds them (in torchvision's layout)."""

    name: str = "mnist5k"
    root: str = "data"

    @property
    def spec(self) -> DatasetSpec:
        """Shape, classes and sizes of the dataset."""
        return DATASET_SPECS[self.name]


# --- partitions -----------------------------------------------------------------------------------


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


# --- models, strategies, clients ------------------------------------------------------------------


@dataclass(frozen=True)
class ModelConfig:
    """Which network."""

    name: str = "mlp"


@dataclass(frozen=True)
class MlpModel(ModelConfig):
    """Fully connected layers with ReLU between them; ``hidden`` are the widths in between."""

    hidden: list[int] = field(default_factory=lambda: [128])


@dataclass(frozen=True)
class StrategyConfig:
    """How the server combines what the clients send."""

    name: str = "fedavg"


@dataclass(frozen=True)
class FedAvgStrategy(StrategyConfig):
    """Federated averaging, weighted by examples."""


@dataclass(frozen=True)
class LocalOnlyStrategy(StrategyConfig):
    """No federation: every client trains alone from the same initial weights."""

    name: str = "local_only"


@dataclass(frozen=True)
class ClientsConfig:
    """How many clients there are, and which share takes part in a round (at least one client)."""

    num: int = ranged(3, ge=1)
    fraction_train: float = ranged(1.0, gt=0, le=1)
    fraction_evaluate: float = ranged(0.0, ge=0, le=1)


# --- training and stopping ------------------------------------------------------------------------


@dataclass(frozen=True)
class TrainingConfig:
    """What a client does between two messages of the server."""

    local_epochs: int = ranged(10, ge=1)
    batch_size: int = ranged(64, ge=1)
    optimizer: str = one_of("sgd", "sgd")
    learning_rate: float = ranged(0.01, gt=0)
    momentum: float = ranged(0.9, ge=0, lt=1)
    weight_decay: float = ranged(0.0, ge=0)


@dataclass(frozen=True)
class StopConfig:
    """Stop early after ``patience`` rounds in a row that improve ``metric`` by less than ``min_delta``.

    ``patience: null`` never stops early. The metric is the global model's on the whole test set.
    """

    metric: str = one_of("accuracy", "accuracy", "loss")
    min_delta: float = ranged(0.001, ge=0)
    patience: int | None = ranged(None, ge=1)


# --- backends and tracking ------------------------------------------------------------------------


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
class TrackingConfig:
    """Where metrics go besides the run folder; ``csv`` is the run folder alone."""

    name: str = "csv"


@dataclass(frozen=True)
class Config:
    """One experiment; ``isolated_rounds`` replaces ``rounds`` where no client is federated."""

    name: str = "fedexp"
    seed: int = ranged(0, ge=0)
    rounds: int = ranged(3, ge=1)
    isolated_rounds: int | None = ranged(None, ge=1)
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


# One line an entry: group -> the name in YAML -> its dataclass.
SCHEMAS: dict[str, dict[str, type]] = {
    "dataset": {"mnist5k": DatasetConfig, "mnist": DatasetConfig},
    "partition": {"iid": IidPartition, "exclude": ExcludePartition},
    "model": {"mlp": MlpModel},
    "strategy": {"fedavg": FedAvgStrategy, "local_only": LocalOnlyStrategy},
    "clients": {"clients": ClientsConfig},
    "backend": {"ray": RayBackend, "flower": FlowerBackend, "inline": InlineBackend},
    "tracking": {"csv": TrackingConfig},
}
