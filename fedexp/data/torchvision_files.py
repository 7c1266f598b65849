"""Datasets that torchvision downloads and reads: one path for all of them.

torchvision unpacks and parses files; what comes out of here is what the dataset's page promised, or an
error. Nothing is imported from torchvision before a dataset needs it. MNIST's format is read without: the
import costs 150 MiB and more than a second, in every process that reads data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedexp.core.options import FedexpError
from fedexp.data.examples import Examples, Spec


@dataclass(frozen=True)
class Source:
    """How torchvision finds a dataset.

    Attributes:
        reader: Name of the class in ``torchvision.datasets``.
        folder: Where the files lie below ``dataset.root``; empty for the root itself.
        files: What must lie there, unpacked.
        train: What asks the reader for the training images.
        test: What asks it for the test images.
        labels: The reader's attribute that holds the labels.
        first_label: The label that files start to count from.
        is_idx: Whether files are in MNIST's format: training images, their labels, then those of tests.
    """

    reader: str
    folder: str
    files: tuple[str, ...]
    train: Mapping[str, Any]
    test: Mapping[str, Any]
    labels: str = "targets"
    first_label: int = 0
    is_idx: bool = False


def halves() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what most readers are asked for: the training images, then the test images."""
    return {"train": True}, {"train": False}


def idx_source(reader: str) -> Source:
    """Return the source of a dataset in MNIST's four files."""
    kinds = ("images-idx3-ubyte", "labels-idx1-ubyte")
    files = tuple(f"{part}-{kind}" for part in ("train", "t10k") for kind in kinds)
    return Source(reader, f"{reader}/raw", files, *halves(), is_idx=True)


def emnist_source(split: str, first_label: int) -> Source:
    """Return the source of one of EMNIST's splits."""
    kinds = ("images-idx3-ubyte", "labels-idx1-ubyte")
    files = tuple(f"emnist-{split}-{part}-{kind}" for part in ("train", "test") for kind in kinds)
    train, test = ({"split": split, **half} for half in halves())
    return Source("EMNIST", "EMNIST/raw", files, train, test, first_label=first_label, is_idx=True)


def ensure_files(name: str, root: str, source: Source) -> None:
    """Download a dataset whose files are absent.

    Args:
        name: What the command line calls it.
        root: The folder that ``source.folder`` lies in.
        source: Which files, and who reads them.

    Raises:
        FedexpError: If that fails, with the files that are wanted and where; no empty folder is left.
    """
    folder = Path(root) / source.folder
    if all((folder / file).is_file() for file in source.files):
        return
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        for part in (source.train, source.test):
            _reader(source)(root, download=True, **part)
    except Exception as error:  # networks, archives and parsers fail in many ways
        for path in new:  # torchvision makes the folders before it finds that it cannot fill them
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
        raise FedexpError(
            f"dataset={name} is not in dataset.root={root} and could not be "
            f"downloaded ({_first_line(error)}).\n"
            f"Fill {folder} with {_listed(source.files)}{' (unpacked)' if source.folder else ''}, "
            "or name the folder that has them: dataset.root=FOLDER.\n"
            "No network? dataset=mnist5k comes with the installation: 5,000 real digits."
        ) from error


def read_files(name: str, root: str, source: Source, spec: Spec) -> tuple[Examples, Examples]:
    """Read a dataset's training and test images, after downloading it if it is absent.

    Args:
        name: What the command line calls it.
        root: The folder that ``source.folder`` lies in.
        source: Which files, and who reads them.
        spec: What they must hold.

    Returns:
        Images, uint8, shape (N, channels, height, width), and labels that start at 0.

    Raises:
        FedexpError: If files are absent, damaged, or not what the spec says.
    """
    ensure_files(name, root, source)
    folder = Path(root) / source.folder
    parts = []
    for what, part, number in (
        ("training", source.train, spec.num_train),
        ("test", source.test, spec.num_test),
    ):
        try:
            examples = _read_part(root, source, spec, part)
        except Exception as error:  # a parser may stumble over damage in any way
            raise FedexpError(f"dataset={name}: {_damage(folder, source, error)}") from error
        _check(f"dataset={name}: {folder} holds {what}", examples, spec, number)
        parts.append(examples)
    return parts[0], parts[1]


def _read_part(root: str, source: Source, spec: Spec, part: Mapping[str, Any]) -> Examples:
    if source.is_idx:
        first = 0 if part is source.train else 2
        paths = (Path(root) / source.folder / file for file in source.files[first : first + 2])
        images, labels = map(read_idx, paths)
        if (images.ndim, labels.ndim) != (3, 1):
            found = f"{images.ndim} and {labels.ndim}"
            raise ValueError(f"images and labels must have 3 axes and 1, got {found}")
    else:
        dataset = _reader(source)(root, download=False, **part)
        images, labels = np.asarray(dataset.data), np.asarray(getattr(dataset, source.labels))
    if images.ndim == 3:
        images = images[:, None]
    elif images.shape[1:] != spec.shape:
        images = images.transpose(0, 3, 1, 2)  # torchvision's CIFAR has the channels last
    return Examples(np.ascontiguousarray(images), labels.astype(np.int64) - source.first_label)


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """Read a file in MNIST's format, of bytes.

    Two bytes of 0, a code for bytes (8), the number of axes, four bytes for the length of each, then the
    numbers.

    Raises:
        ValueError: If it is not in that format, or cut short.
    """
    content = np.fromfile(path, dtype=np.uint8)
    head, num_axes = content[:3].tobytes(), int(content[3]) if len(content) > 3 else 0
    start = 4 + 4 * num_axes
    if head != b"\0\0\x08" or not num_axes or len(content) < start:
        raise ValueError(f"{path} is not in the idx format")
    return content[start:].reshape([int(axis) for axis in content[4:start].view(">u4")])


def _check(where: str, examples: Examples, spec: Spec, number: int) -> None:
    images, labels = examples.inputs, examples.targets
    found = (images.dtype, images.shape, labels.shape)
    wanted = (np.dtype(np.uint8), (number, *spec.shape), (number,))
    if found != wanted:
        raise FedexpError(
            f"{where} images of {found[0]} {found[1]} and labels {found[2]}; they must be "
            f"{wanted[0]} {wanted[1]} and {wanted[2]}. Delete the files to download them again."
        )
    if labels.min() < 0 or labels.max() >= spec.num_classes:
        raise FedexpError(
            f"{where} labels from {labels.min()} to {labels.max()}; they must lie between 0 "
            f"and {spec.num_classes - 1}. Delete the files to download them again."
        )


def _damage(folder: Path, source: Source, error: Exception) -> str:
    """Say in one line which file is to blame, as far as sizes and checksums tell."""
    paths = [folder / file for file in source.files]
    broken = [str(path) for path in paths if _is_damaged(path, _checksums(_reader(source)))]
    if broken:
        blamed = f"{_listed(broken)} {'is' if len(broken) == 1 else 'are'} damaged or cut short"
    else:
        blamed = f"{folder} cannot be read ({_first_line(error)})"
    return f"{blamed}. Delete what is damaged to download it again."


def _is_damaged(path: Path, checksums: Mapping[str, str]) -> bool:
    from torchvision.datasets.utils import check_integrity

    if path.name in checksums:
        return not check_integrity(path, checksums[path.name])
    try:
        read_idx(path)
    except ValueError:
        return True
    return False


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


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(":")
