"""Read CSV, Parquet and NPZ files as tables.

What cannot be read is refused in one line that names the file, the line or row, the column, and what
would be right.
"""

from __future__ import annotations

import csv
import io
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedexp.core.options import FedexpError
from fedexp.data.table import Column, Table, column_of

SUFFIXES = (".csv", ".parquet", ".npz")

LARGEST = 1e30
"""Models compute with float32, whose largest number is 3e38, and squares of numbers are summed."""

_SEPARATORS = ",;\t"

_BLOCK = 10_000
"""Rows of a text that are held as text at a time: a cell takes ten times what its number does."""


def read_table(path: Path, ignore: Collection[str] = ()) -> Table:
    """Read a file.

    Args:
        path: Ends in .csv, .parquet or .npz.
        ignore: Names of columns that are not looked at.

    Raises:
        FedexpError: With one line that says what is wrong with it, and where.
    """
    readers = dict(zip(SUFFIXES, (_read_csv, _read_parquet, _read_npz), strict=True))
    try:
        table = readers[path.suffix.lower()](path, frozenset(ignore))
    except OSError as error:
        raise FedexpError(f"{path} cannot be read: {error.strerror or error}") from error
    if not len(table):
        raise FedexpError(f"{path} holds no rows: give it some, or take it away")
    for name, column in table.columns.items():
        huge = np.abs(column.numbers) > LARGEST  # NaN is not
        if huge.any():
            raise FedexpError(
                f"{table.first(huge, name)}: a number must lie between -1e30 and 1e30 to be trained on; "
                "correct it or empty the cell"
            )
    return table


def _read_csv(path: Path, ignore: frozenset[str]) -> Table:
    rows = _csv_rows(path)
    names = [cell.strip() for cell in next(rows)[1]]
    _check_names(path, names)
    lines: list[int] = []
    blocks: dict[str, list[Column]] = {name: [] for name in names if name not in ignore}
    while block := list(islice(rows, _BLOCK)):
        lines += [line for line, _ in block]
        for name, cells in zip(names, zip(*(row for _, row in block), strict=True), strict=True):
            if name in blocks:
                blocks[name].append(column_of(cells))
    columns = {name: _joined(parts) for name, parts in blocks.items() if parts}
    return Table(str(path), columns, np.array(lines, dtype=np.int64), "line")


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the line and the cells of every row that has a value, the one that names columns first."""
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise FedexpError(
            f"{path}, line {line}: byte {content[error.start]:#04x} is not UTF-8; save the file as "
            "UTF-8 (in a spreadsheet: CSV UTF-8)"
        ) from error
    head = re.search(r"\S.*", text)
    if head is None:
        raise FedexpError(f"{path} is empty: its first line must name the columns")
    separator = max(_SEPARATORS, key=head.group().count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    line, width = 1, 0
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                width = width or len(cells)
                if len(cells) != width:
                    raise FedexpError(
                        f"{path}, line {line}: {len(cells)} cells where the first line names {width} "
                        f"columns; a cell that holds {separator!r} must stand in quotes"
                    )
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise FedexpError(f"{path}, line {line}: {error}; correct the quotes") from error
    if not width:
        raise FedexpError(f"{path} is empty: its first line must name the columns")


def _joined(parts: Sequence[Column]) -> Column:
    numbers = np.concatenate([part.numbers for part in parts])
    if all(part.words is None for part in parts):
        return Column(numbers)
    none = [np.full(len(part.numbers), None, dtype=object) for part in parts]
    words = [w if p.words is None else p.words for p, w in zip(parts, none, strict=True)]
    return Column(numbers, np.concatenate(words))


def _check_names(path: Path, names: Sequence[str]) -> None:
    if "" in names:
        raise FedexpError(
            f"{path}: column {names.index('') + 1} has no name; give it one, or take it away (pandas: "
            "to_csv(..., index=False))"
        )
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise FedexpError(f"{path}: {count} columns are called {name}; rename all but one")


def _read_parquet(path: Path, ignore: frozenset[str]) -> Table:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise FedexpError(
            f"{path}: Parquet needs the package pyarrow: pip install 'pyarrow>=16'"
        ) from error
    try:
        stored = parquet.ParquetFile(path).read()
    except (pyarrow.ArrowException, OSError) as error:
        reason = (str(error).splitlines() or ["damaged"])[0]
        raise FedexpError(f"{path} is no whole Parquet file ({reason})") from error
    _check_names(path, list(stored.column_names))
    columns = {}
    for name in stored.column_names:
        # pandas keeps the index of a frame in a column of such a name.
        if name not in ignore and not name.startswith("__index_level_"):
            columns[name] = of_arrow(path, name, stored.column(name))
    return Table(str(path), columns, np.arange(1, stored.num_rows + 1))


def of_arrow(path: Path, name: str, cells: Any) -> Column:
    """Return the cells of a column of Arrow's.

    Raises:
        FedexpError: If they are neither numbers nor words.
    """
    from pyarrow import types

    kind = cells.type
    if types.is_dictionary(kind):
        kind = kind.value_type
        cells = cells.cast(kind)
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return Column(cells.cast("float64").to_numpy().astype(np.float64))
    if types.is_boolean(kind) or types.is_null(kind):
        return column_of(["" if cell is None else str(cell) for cell in cells.to_pylist()])
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return column_of(["" if cell is None else cell for cell in cells.to_pylist()])
    raise FedexpError(
        f"{path}, column {name}: holds {kind}; write it as numbers or words, or leave it out: "
        f"dataset.ignore=[{name}]"
    )


def _read_npz(path: Path, ignore: frozenset[str]) -> Table:
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files if name not in ignore}
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise FedexpError(
            f"{path} is no archive of plain arrays ({reason}); write it with numpy.savez, arrays of "
            "numbers or words"
        ) from error
    lengths = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise FedexpError(f"{path}: every array must have a row for each example; {told}")
    flat = {name: array for name, array in arrays.items() if array.ndim == 1}
    others = {name: array for name, array in arrays.items() if array.ndim > 1}
    if len(others) > 1:
        raise FedexpError(
            f"{path}: {' and '.join(others)} may each be the inputs; leave all but one out: "
            f"dataset.ignore=[{','.join(list(others)[1:])}]"
        )
    columns = {name: _of_numpy(path, name, array) for name, array in flat.items()}
    count = next(iter(lengths.values()), 0)
    return Table(
        str(path), columns, np.arange(1, count + 1), array=next(iter(others.values()), None)
    )


def _of_numpy(path: Path, name: str, array: npt.NDArray[Any]) -> Column:
    if array.dtype.kind in "iuf":
        return Column(array.astype(np.float64))
    if array.dtype.kind in "bU":
        return column_of([str(cell) for cell in array.tolist()])
    raise FedexpError(
        f"{path}, column {name}: holds {array.dtype}; write it as numbers or words, or leave it out: "
        f"dataset.ignore=[{name}]"
    )
