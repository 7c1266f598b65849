"""Images in folders: ``<class>/*.png``, or ``<client>/<class>/*.png``."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedexp.core.options import FedexpError
from fedexp.data.table import Column, Table

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")

_GREY, _COLOURED = ("1", "L", "LA"), ("P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")

Pixels = npt.NDArray[np.uint8]


def read_folders(path: Path, folders: Sequence[Path], target: str, side: int | None) -> list[Any]:
    """Read the images below folders of classes, or of clients with folders of classes.

    Args:
        path: What holds the folders.
        folders: Those to read: all classes, or all clients.
        target: What the column of classes is called.
        side: Height and width that images are resized to; None takes them as they are.

    Returns:
        Owner (None where the folders are classes) and table of each; the images are the table's array.

    Raises:
        FedexpError: With one line that names the first file that is no image, or has another size.
    """
    inner = {folder: _folders_in(folder) for folder in folders}
    if not any(inner.values()):
        return [(None, _read_classes(path, folders, target, side))]
    for folder, classes in inner.items():
        if not classes:
            raise FedexpError(
                f"{folder} holds no folder, and others beside it do: it must be CLIENT/CLASS/image.png "
                "throughout, or CLASS/image.png"
            )
        _refuse_files(folder)
    return [(f.name, _read_classes(f, classes, target, side)) for f, classes in inner.items()]


def _folders_in(folder: Path) -> list[Path]:
    return sorted(f for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))


def _refuse_files(folder: Path) -> None:
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.suffix.lower() in SUFFIXES:
            raise FedexpError(f"{file} is in no folder of a class: move it into {folder}/CLASS")


def _read_classes(path: Path, classes: Sequence[Path], target: str, side: int | None) -> Table:
    files, names = [], []
    for folder in classes:
        mine = [file for file in sorted(folder.iterdir()) if not _is_aside(file)]
        if not mine:
            raise FedexpError(f"{folder} holds no image: put some there, or take the folder away")
        files += mine
        names += [folder.name] * len(mine)
    array = stacked([str(file) for file in files], files, side)
    column = Column(np.full(len(names), np.nan), np.array(names, dtype=object))
    return Table(str(path), {target: column}, np.arange(1, len(names) + 1), array=array)


def _is_aside(file: Path) -> bool:
    return file.name.startswith(".") or file.name in ("Thumbs.db", "desktop.ini")


def stacked(names: Sequence[str], sources: Sequence[Path | bytes], side: int | None) -> Pixels:
    """Decode images.

    Args:
        names: What messages call them.
        sources: Files, or what is in them.
        side: Height and width that they are resized to; None takes them as they are, all of one size.

    Returns:
        uint8, shape (N, channels, height, width): one channel if all are grey, else three.

    Raises:
        FedexpError: If one is no image, or has another size than the first.
    """
    decoded = [_decoded(name, source, side) for name, source in zip(names, sources, strict=True)]
    first = decoded[0].shape[:2]
    for name, pixels in zip(names, decoded, strict=True):
        if pixels.shape[:2] != first:
            raise FedexpError(
                f"{name} is {_size(pixels.shape)} pixels, {names[0]} {_size(first)}: dataset.side=N "
                "resizes all images to N x N"
            )
    channels = 3 if any(pixels.ndim == 3 for pixels in decoded) else 1
    found = np.empty((len(decoded), channels, *first), dtype=np.uint8)
    for place, pixels in enumerate(decoded):
        found[place] = pixels.transpose(2, 0, 1) if pixels.ndim == 3 else pixels
    return found


def _size(shape: Sequence[int]) -> str:
    return f"{shape[0]}x{shape[1]}"


def _decoded(name: str, source: Path | bytes, side: int | None) -> Pixels:
    """Return an image as uint8, shape (height, width) if it is grey, or (height, width, 3)."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            if image.mode not in (*_GREY, *_COLOURED):
                raise FedexpError(
                    f"{name} has pixels of type {image.mode}: convert it to 8 bits a channel"
                )
            plain = image.convert("L" if image.mode in _GREY else "RGB")
            if side is not None:
                plain = plain.resize((side, side), Image.Resampling.BILINEAR)
            return np.asarray(plain)
    except FedexpError:
        raise
    except Exception as error:  # a decoder may stumble over damage in any way
        reason = " ".join(str(error).split()).replace(repr(str(source)), "it")
        raise FedexpError(
            f"{name} is no whole image ({reason or type(error).__name__}): repair it, or take it away"
        ) from error
