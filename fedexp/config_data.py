"""Datasets and models: what can be chosen, and what is known of a dataset before it is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar


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


@dataclass(frozen=True)
class ModelConfig:
    """Which network.

    Attributes:
        has_buffers: Whether it holds BatchNorm statistics beside its parameters.
    """

    has_buffers: ClassVar[bool] = False

    name: str = "mlp"


@dataclass(frozen=True)
class MlpModel(ModelConfig):
    """Fully connected layers with ReLU between them; ``hidden`` are the widths in between."""

    hidden: list[int] = field(default_factory=lambda: [128])
