"""Datasets and models: what can be chosen, and what is known of each before it is read or built."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from fedexp.core.options import one_of, ranged
from fedexp.datasets import class_names


@dataclass(frozen=True)
class DatasetSpec:
    """What is known of a dataset before it is read.

    Attributes:
        shape: Channels, height and width of one image.
        classes: What the labels 0, 1, ... are called, one name each.
        num_train: Training images.
        num_test: Test images.
        mean: Per channel, subtracted from pixels scaled to [0, 1].
        std: Per channel, divides what is left.
    """

    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    num_train: int
    num_test: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def num_classes(self) -> int:
        """Number of labels; labels are 0 .. num_classes - 1."""
        return len(self.classes)


def _grey(
    classes: tuple[str, ...], num_train: int, num_test: int, mean: float, std: float
) -> DatasetSpec:
    return DatasetSpec((1, 28, 28), classes, num_train, num_test, (mean,), (std,))


# Mean and standard deviation over the training pixels, but for MNIST: there 0.5 is the lesson's.
DATASET_SPECS = {
    "mnist5k": _grey(class_names.DIGITS, 4_000, 1_000, 0.5, 0.5),
    "mnist": _grey(class_names.DIGITS, 60_000, 10_000, 0.5, 0.5),
    "fashion_mnist": _grey(class_names.FASHION_MNIST, 60_000, 10_000, 0.2860, 0.3530),
    "kmnist": _grey(class_names.KMNIST, 60_000, 10_000, 0.1918, 0.3483),
    "cifar10": DatasetSpec(
        (3, 32, 32),
        class_names.CIFAR10,
        50_000,
        10_000,
        (0.4914, 0.4822, 0.4465),
        (0.2470, 0.2435, 0.2616),
    ),
    "cifar100": DatasetSpec(
        (3, 32, 32),
        class_names.CIFAR100,
        50_000,
        10_000,
        (0.5071, 0.4865, 0.4409),
        (0.2673, 0.2564, 0.2762),
    ),
    "svhn": DatasetSpec(
        (3, 32, 32),
        class_names.DIGITS,
        73_257,
        26_032,
        (0.4377, 0.4438, 0.4728),
        (0.1980, 0.2010, 0.1970),
    ),
}

# The constants of `balanced` serve every split, so that splits can be compared.
EMNIST_SPECS = {
    "balanced": _grey(class_names.EMNIST_MERGED, 112_800, 18_800, 0.1751, 0.3332),
    "byclass": _grey(class_names.EMNIST_ALL, 697_932, 116_323, 0.1751, 0.3332),
    "bymerge": _grey(class_names.EMNIST_MERGED, 697_932, 116_323, 0.1751, 0.3332),
    "digits": _grey(class_names.DIGITS, 240_000, 40_000, 0.1751, 0.3332),
    "letters": _grey(class_names.EMNIST_LETTERS, 124_800, 20_800, 0.1751, 0.3332),
    "mnist": _grey(class_names.DIGITS, 60_000, 10_000, 0.1751, 0.3332),
}


@dataclass(frozen=True)
class Augmentation:
    """Random changes to training images; see :func:`fedexp.data.augment.augment`."""

    padding: int
    flip: bool


@dataclass(frozen=True)
class DatasetConfig:
    """Which images, and the folder that holds them (in torchvision's layout)."""

    name: str = "mnist5k"
    root: str = "data"

    @property
    def spec(self) -> DatasetSpec:
        """Shape, classes and sizes of the dataset."""
        return DATASET_SPECS[self.name]

    @property
    def augmentation(self) -> Augmentation | None:
        """What is done to training images before every step, if anything."""
        return None


@dataclass(frozen=True)
class EmnistDataset(DatasetConfig):
    """Handwritten digits and letters; ``split`` decides which, and how labels are merged."""

    name: str = "emnist"
    split: str = one_of("balanced", *EMNIST_SPECS)

    @property
    def spec(self) -> DatasetSpec:
        """Shape, classes and sizes of the split."""
        return EMNIST_SPECS[self.split]


@dataclass(frozen=True)
class CifarDataset(DatasetConfig):
    """Small photographs; ``augment`` crops (4 pixels of padding) and flips training images."""

    name: str = "cifar10"
    augment: bool = True

    @property
    def augmentation(self) -> Augmentation | None:
        """Random crops and mirror images, if ``augment``."""
        return Augmentation(padding=4, flip=True) if self.augment else None


@dataclass(frozen=True)
class ModelConfig:
    """Which network.

    Attributes:
        has_buffers: Whether its state holds more than what gradients move, such as BatchNorm's running
            statistics and integer counters.
        min_side: Least height and width of an image, in pixels, that it can be trained on.
    """

    has_buffers: ClassVar[bool] = False
    min_side: ClassVar[int] = 1

    name: str = "mlp"


@dataclass(frozen=True)
class MlpModel(ModelConfig):
    """Fully connected layers with ReLU between them; ``hidden`` are the widths in between."""

    hidden: list[int] = field(default_factory=lambda: [128])


@dataclass(frozen=True)
class LogisticModel(ModelConfig):
    """Multinomial logistic regression: one linear layer."""

    name: str = "logistic"


@dataclass(frozen=True)
class TwoNnModel(ModelConfig):
    """McMahan et al.'s 2NN: two hidden layers of 200 units."""

    name: str = "two_nn"


@dataclass(frozen=True)
class CnnModel(ModelConfig):
    """McMahan et al.'s CNN: two convolutions that keep the size, each followed by a halving."""

    min_side: ClassVar[int] = 4  # 4 -> 2 -> 1

    name: str = "cnn"


@dataclass(frozen=True)
class Lenet5Model(ModelConfig):
    """NIID-Bench's LeNet-5: two convolutions that cost 4 pixels each, each followed by a halving."""

    min_side: ClassVar[int] = 16  # 16 -> 12 -> 6 -> 2 -> 1

    name: str = "lenet5"


@dataclass(frozen=True)
class Resnet18Model(ModelConfig):
    """ResNet-18 with GroupNorm of ``groups`` groups a layer, and a stem for small images."""

    name: str = "resnet18"
    groups: int = ranged(2, ge=1)


@dataclass(frozen=True)
class MobilenetV3SmallModel(ModelConfig):
    """MobileNetV3-Small with its BatchNorm, a stem for small images, and no dropout."""

    has_buffers: ClassVar[bool] = True
    # Four halvings, rounded up, must leave 2 pixels: BatchNorm needs more than one value per channel,
    # and a client's last batch may hold a single image.
    min_side: ClassVar[int] = 17

    name: str = "mobilenet_v3_small"
