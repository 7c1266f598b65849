"""Files of one's own: which there are, and whose the rows are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedexp.core.options import FedexpError
from fedexp.data.assembling import TEST, Found, Part, Wanted, assemble
from fedexp.data.image_folders import read_folders
from fedexp.data.saved_datasets import is_saved, read_saved, training_part
from fedexp.data.table import Table
from fedexp.data.table_files import SUFFIXES, read_table


def files_in(path: Path) -> list[Path]:
    """Return the tables that a path stands for, itself or those in the folder; or folders of images.

    Raises:
        FedexpError: If there are none, or something else lies beside them.
    """
    if not path.exists():
        raise FedexpError(
            f"dataset.path={path} is not there: name a file ({', '.join(SUFFIXES)}) or a folder of such "
            "files, one per client"
        )
    if not path.is_dir():
        found = [path]
    else:
        found = sorted(file for file in path.iterdir() if not _is_aside(file))
        if found and all(file.is_dir() for file in found):
            return found
    for file in found:
        if file.suffix.lower() not in SUFFIXES or not file.is_file():
            raise FedexpError(
                f"{file} is none of {', '.join(SUFFIXES)}: convert it, or take it away"
            )
    if not found:
        raise FedexpError(
            f"{path} holds no file that ends in {', '.join(SUFFIXES)}, and no folders of images: put "
            "some there"
        )
    return found


def _is_aside(file: Path) -> bool:
    """Say whether a file in a folder of data is none: hidden, a text about them, or the test data."""
    about = file.suffix.lower() == ".md" or file.stem.upper() in ("README", "LICENSE")
    return file.name.startswith(".") or about or (file.name == TEST and file.is_dir())


def version(path: Path) -> str:
    """Return what differs once a file at a path was written, so that it is read again."""
    below = [path]
    if path.is_dir():
        # As deep as files lie that are read, and no deeper: somebody may name a whole disk.
        patterns = ("*", "*/*", "*/*/*", f"{TEST}/*/*/*")
        below = sorted({file for pattern in patterns for file in path.glob(pattern)})
    seen = [(str(file), file.stat()) for file in below if file.is_file()]
    return repr([(name, found.st_size, found.st_mtime_ns) for name, found in seen])


def read(path: Path, wanted: Wanted) -> Found:
    """Read the files at a path.

    Raises:
        FedexpError: With one line that says what is wrong with them, and where.
    """
    train = _by_owner(parts_of(training_part(path), wanted), wanted)
    given = path / TEST
    test = _by_owner(parts_of(given, wanted), wanted) if given.is_dir() else None
    if test is not None and wanted.test_fraction is not None:
        raise FedexpError(
            f"dataset.test_fraction={wanted.test_fraction:g}: {given} holds the test data; leave the "
            "option out, or take the folder away"
        )
    return assemble(train, test, wanted)


def parts_of(path: Path, wanted: Wanted) -> list[Part]:
    """Read what is at a path: a saved data set, folders of images, or tables.

    A folder of images in which there are clients is its client's, and so is a file of a folder of tables,
    unless a column says whose the rows are.
    """
    if is_saved(path):
        return [Part(None, read_saved(path, wanted.ignore, wanted.side))]
    files = files_in(path)
    if files[0].is_dir():
        found = read_folders(path, files, wanted.target, wanted.side)
        return [Part(owner, table) for owner, table in found]
    stems = [file.stem for file in files]
    for stem in stems:
        if stems.count(stem) > 1:
            raise FedexpError(f"{path} holds {stem} twice, in different formats: take one away")
    named = path.is_dir() and wanted.client is None
    return [Part(file.stem if named else None, read_table(file, wanted.ignore)) for file in files]


def _by_owner(parts: Sequence[Part], wanted: Wanted) -> list[Part]:
    """Divide tables by the column that says whose a row is; return them in the order of owners."""
    found: list[Part] = list(parts)
    if wanted.client is not None:
        found = [own for part in parts for own in _divided(part.table, wanted.client)]
    return sorted(found, key=lambda part: _in_order(part.owner or "", found))


def _in_order(owner: str, parts: Sequence[Part]) -> Any:
    """Order owners by number where all are numbers, else by name."""
    return int(owner) if all((p.owner or "").isdecimal() for p in parts) else owner


def _divided(table: Table, client: str) -> list[Part]:
    if client not in table.columns:
        raise FedexpError(
            f"{table.source} has no column {client}: name the one that says whose a row is, "
            f"dataset.client=NAME; it has {', '.join(table.columns)}"
        )
    told = table.columns[client]
    if told.is_missing.any():
        raise FedexpError(
            f"{table.first(told.is_missing, client)}: it does not say whose the row is"
        )
    left = table.without([client])
    names, number = np.unique(np.array(told.texts(), dtype=str), return_inverse=True)
    order, counts = np.argsort(number, kind="stable"), np.bincount(number)
    pieces = np.split(order, np.cumsum(counts)[:-1])
    return [Part(str(name), left.take(rows)) for name, rows in zip(names, pieces, strict=True)]
