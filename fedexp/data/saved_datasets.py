"""A data set that Hugging Face's ``datasets`` saved with ``save_to_disk``; the package is an extra."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from fedexp.core.options import FedexpError
from fedexp.data.image_folders import stacked
from fedexp.data.table import Column, Table
from fedexp.data.table_files import of_arrow

SPLITS = ("train", "test")


def is_saved(path: Path) -> bool:
    """Say whether a folder is a saved data set, or one of several splits."""
    return (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()


def training_part(path: Path) -> Path:
    """Return the folder of the training examples of a saved data set.

    Raises:
        FedexpError: If it has splits that nobody would read.
    """
    if not (path / "dataset_dict.json").is_file():
        return path
    try:
        splits = list(json.loads((path / "dataset_dict.json").read_text())["splits"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FedexpError(
            f"{path / 'dataset_dict.json'} cannot be read: save the data anew"
        ) from error
    others = [name for name in splits if name not in SPLITS]
    if "train" not in splits or others:
        raise FedexpError(
            f"{path} has the splits {', '.join(splits)}; it must have train and may have test: save it "
            "with those (what is held out for validation is a share of train, dataset.validation)"
        )
    return path / "train"


def read_saved(path: Path, ignore: Collection[str], side: int | None) -> Table:
    """Read a saved data set without splits, or one split.

    Args:
        path: Its folder.
        ignore: Columns that are not looked at.
        side: Height and width that images are resized to; None takes them as they are.

    Raises:
        FedexpError: If it is damaged, or holds what nothing can be made of.
    """
    try:
        import datasets
    except ImportError as error:
        raise FedexpError(
            f"{path}: a saved Hugging Face data set needs the package datasets: pip install 'datasets>=4'"
        ) from error
    try:
        saved: Any = datasets.load_from_disk(str(path))
        features, stored = dict(saved.features), saved.with_format("arrow")[:]
    except Exception as error:  # damage shows in many ways
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise FedexpError(f"{path} cannot be read ({reason}): save the data anew") from error
    columns: dict[str, Column] = {}
    arrays: dict[str, Any] = {}
    for name, feature in features.items():
        if name in ignore:
            continue
        cells = stored.column(name)
        if isinstance(feature, datasets.ClassLabel):
            words = [None if k is None or k < 0 else feature.names[k] for k in cells.to_pylist()]
            columns[name] = Column(np.full(len(words), np.nan), np.array(words, dtype=object))
        elif isinstance(feature, datasets.Image):
            arrays[name] = _images(path, name, cells.to_pylist(), side)
        elif isinstance(feature, datasets.Value):
            columns[name] = of_arrow(path, name, cells)
        else:
            arrays[name] = _numbers(path, name, cells.to_pylist())
    if len(arrays) > 1:
        raise FedexpError(
            f"{path}: {' and '.join(arrays)} may each be the inputs; leave all but one out: "
            f"dataset.ignore=[{','.join(list(arrays)[1:])}]"
        )
    array = next(iter(arrays.values()), None)
    return Table(str(path), columns, np.arange(1, stored.num_rows + 1), array=array)


def _images(path: Path, name: str, cells: list[Any], side: int | None) -> Any:
    for place, cell in enumerate(cells, 1):
        if cell is None or cell["bytes"] is None:
            raise FedexpError(
                f"{path}, row {place}, column {name}: there is no image; take the row away"
            )
    names = [f"{path}, row {place}, column {name}" for place in range(1, len(cells) + 1)]
    return stacked(names, [cell["bytes"] for cell in cells], side)


def _numbers(path: Path, name: str, cells: list[Any]) -> Any:
    try:
        return np.array(cells, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise FedexpError(
            f"{path}, column {name}: must be lists of numbers, all of one length; leave it out: "
            f"dataset.ignore=[{name}]"
        ) from error
