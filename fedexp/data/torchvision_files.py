"""Datasets that torchvision downloads and reads: one path for all of them.

torchvision unpacks and parses files; what comes out of here is what :class:`DatasetSpec` promised, or
an error. Nothing is imported from torchvision before a dataset needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedexp.core.options import FedexpError
from fedexp.datasets.options import DatasetConfig, EmnistDataset

Arrays = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]
"""Images, uint8, shape (N, channels, height, width), and labels, int64, shape (N,)."""


@dataclass(frozen=True)
class Source:
    """How torchvision finds a dataset.

    Attributes:
        reader: Name of the class in ``torchvision.datasets``.
        folder: Where the files lie below ``dataset.root``; empty for the root itself.
        files: What must lie there, unpacked.
        train: What asks the reader for the training images.
        test: What asks it for the test images.
    """

    reader: str
    folder: str
    files: tuple[str, ...]
    train: Mapping[str, Any]
    test: Mapping[str, Any]


def _idx_source(reader: str) -> Source:
    kinds = ("images-idx3-ubyte", "labels-idx1-ubyte")
    files = tuple(f"{part}-{kind}" for part in ("train", "t10k") for kind in kinds)
    return Source(reader, f"{reader}/raw", files, {"train": True}, {"train": False})


def _emnist_source(split: str) -> Source:
    kinds = ("images-idx3-ubyte", "labels-idx1-ubyte")
    files = tuple(f"emnist-{split}-{part}-{kind}" for part in ("train", "test") for kind in kinds)
    chosen = {"split": split}
    return Source(
        "EMNIST", "EMNIST/raw", files, {**chosen, "train": True}, {**chosen, "train": False}
    )


def _cifar_source(reader: str, folder: str, *files: str) -> Source:
    return Source(reader, folder, files, {"train": True}, {"train": False})


SOURCES: dict[str, Source] = {
    "mnist": _idx_source("MNIST"),
    "fashion_mnist": _idx_source("FashionMNIST"),
    "kmnist": _idx_source("KMNIST"),
    "cifar10": _cifar_source(
        "CIFAR10",
        "cifar-10-batches-py",
        *(f"data_batch_{k}" for k in range(1, 6)),
        "test_batch",
        "batches.meta",
    ),
    "cifar100": _cifar_source("CIFAR100", "cifar-100-python", "train", "test", "meta"),
    "svhn": Source(
        "SVHN", "", ("train_32x32.mat", "test_32x32.mat"), {"split": "train"}, {"split": "test"}
    ),
}


def _source(config: DatasetConfig) -> Source:
    return (
        _emnist_source(config.split) if isinstance(config, EmnistDataset) else SOURCES[config.name]
    )


def ensure_files(config: DatasetConfig) -> None:
    """Download a dataset whose files are absent.

    Raises:
        FedexpError: If that fails, with the files that are wanted and where; no empty folder is left.
    """
    source, folder = _source(config), _folder(config)
    if all((folder / name).is_file() for name in source.files):
        return
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        for part in (source.train, source.test):
            _reader(source)(config.root, download=True, **part)
    except Exception as error:  # networks, archives and parsers fail in many ways
        for path in new:  # torchvision makes the folders before it finds that it cannot fill them
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
        raise FedexpError(
            f"dataset={config.name} is not in dataset.root={config.root} and could not be "
            f"downloaded ({_first_line(error)}).\n"
            f"Fill {folder} with {_listed(source.files)}{' (unpacked)' if source.folder else ''}, "
            "or name the folder that has them: dataset.root=FOLDER.\n"
            "No network? dataset=mnist5k comes with the installation: 5,000 real digits."
        ) from error


def read_files(config: DatasetConfig) -> tuple[Arrays, Arrays]:
    """Read a dataset's training and test images, after downloading it if it is absent.

    EMNIST's files hold every image transposed, and those of ``letters`` count labels from 1; both are
    put right here.

    Raises:
        FedexpError: If files are absent, damaged, or not what the dataset's spec says.
    """
    ensure_files(config)
    source, spec = _source(config), config.spec
    train = _read_part(config, source.train)
    _check(config, "training", train, spec.num_train)
    test = _read_part(config, source.test)
    _check(config, "test", test, spec.num_test)
    return train, test


def _read_part(config: DatasetConfig, part: Mapping[str, Any]) -> Arrays:
    source = _source(config)
    try:
        dataset = _reader(source)(config.root, download=False, **part)
        images = np.asarray(dataset.data)
        labels = np.asarray(dataset.labels if source.reader == "SVHN" else dataset.targets)
    except Exception as error:  # a parser may stumble over damage in any way
        raise FedexpError(_damage(config, error)) from error
    if images.ndim == 3:
        images = images[:, None]
    elif images.shape[1:] != config.spec.shape:
        images = images.transpose(0, 3, 1, 2)  # torchvision's CIFAR has the channels last
    labels = labels.astype(np.int64)
    if isinstance(config, EmnistDataset):
        images = images.transpose(0, 1, 3, 2)
        labels -= config.split == "letters"
    return np.ascontiguousarray(images), labels


def _check(config: DatasetConfig, part: str, arrays: Arrays, number: int) -> None:
    images, labels = arrays
    spec = config.spec
    found = (images.dtype, images.shape, labels.shape)
    wanted = (np.dtype(np.uint8), (number, *spec.shape), (number,))
    where = f"dataset={config.name}: {_folder(config)} holds"
    if found != wanted:
        raise FedexpError(
            f"{where} {part} images of {found[0]} {found[1]} and labels {found[2]}; they must be "
            f"{wanted[0]} {wanted[1]} and {wanted[2]}. Delete the files to download them again."
        )
    if labels.min() < 0 or labels.max() >= spec.num_classes:
        raise FedexpError(
            f"{where} {part} labels from {labels.min()} to {labels.max()}; they must lie between 0 "
            f"and {spec.num_classes - 1}. Delete the files to download them again."
        )


def _damage(config: DatasetConfig, error: Exception) -> str:
    """Say in one line which file is to blame, as far as sizes and checksums tell."""
    source = _source(config)
    paths = [_folder(config) / name for name in source.files]
    broken = [str(path) for path in paths if _is_damaged(path, _checksums(_reader(source)))]
    if broken:
        blamed = f"{_listed(broken)} {'is' if len(broken) == 1 else 'are'} damaged or cut short"
    else:
        blamed = f"{_folder(config)} cannot be read ({_first_line(error)})"
    return f"dataset={config.name}: {blamed}. Delete what is damaged to download it again."


def _is_damaged(path: Path, checksums: Mapping[str, str]) -> bool:
    from torchvision.datasets.utils import check_integrity

    if path.name in checksums:
        return not check_integrity(path, checksums[path.name])
    # idx: two bytes of 0, a code for bytes (8), the number of axes, four bytes each, then the numbers.
    with path.open("rb") as file:
        head = file.read(4 + 4 * 3)
    if head[:3] != b"\0\0\x08" or len(head) < 4 + 4 * head[3]:
        return True
    axes = np.frombuffer(head[4 : 4 + 4 * head[3]], dtype=">u4")
    return path.stat().st_size != 4 + 4 * head[3] + int(np.prod(axes, dtype=np.int64))


def _checksums(reader: Any) -> dict[str, str]:
    """Return file name -> MD5, for the readers that know those of unpacked files."""
    listed = [*getattr(reader, "train_list", ()), *getattr(reader, "test_list", ())]
    sums: dict[str, str] = dict(listed)
    sums |= {name: md5 for _, name, md5 in getattr(reader, "split_list", {}).values()}
    if meta := getattr(reader, "meta", None):
        sums[meta["filename"]] = meta["md5"]
    return sums


def _reader(source: Source) -> Callable[..., Any]:
    from torchvision import datasets

    reader: Callable[..., Any] = getattr(datasets, source.reader)
    return reader


def _folder(config: DatasetConfig) -> Path:
    return Path(config.root) / _source(config).folder


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(":")
