"""Tables of other people's: CSV, Parquet and NPZ read into columns of numbers and words.

Nothing is decided here about what a column is for. What cannot be read is refused in one line that names
the file, the line or row, the column, and what would be right.
"""

from __future__ import annotations

import csv
import io
import zipfile
import zlib
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedexp.core.options import FedexpError

MISSING = frozenset(("", "NA", "N/A", "NaN", "nan", "NAN", "null", "NULL", "?"))
"""Cells that stand for a value that nobody knows."""

SUFFIXES = (".csv", ".parquet", ".npz")

LARGEST = 1e30
"""Models compute with float32, whose largest number is 3e38, and squares of numbers are summed."""

_SEPARATORS = ",;\t"


@dataclass(frozen=True)
class Column:
    """The cells of a column.

    Attributes:
        numbers: float64, shape (n,); NaN where a cell is missing or holds a word.
        words: Shape (n,), objects: the word of a cell that holds one, else None; None where no cell does.
    """

    numbers: npt.NDArray[np.float64]
    words: npt.NDArray[np.object_] | None = None

    def take(self, rows: npt.NDArray[np.int64]) -> Column:
        """Return some of the cells."""
        return Column(self.numbers[rows], None if self.words is None else self.words[rows])

    @property
    def is_word(self) -> npt.NDArray[np.bool_]:
        """Which cells hold a word, shape (n,)."""
        if self.words is None:
            return np.zeros(len(self.numbers), dtype=bool)
        return np.array([word is not None for word in self.words], dtype=bool)

    @property
    def is_number(self) -> npt.NDArray[np.bool_]:
        """Which cells hold a number, shape (n,)."""
        return ~np.isnan(self.numbers)

    @property
    def is_missing(self) -> npt.NDArray[np.bool_]:
        """Which cells hold nothing, shape (n,)."""
        return ~self.is_number & ~self.is_word

    def texts(self) -> list[str | None]:
        """Return every cell as a word, numbers written out; None for what is missing."""
        found = [None if np.isnan(n) else written(n) for n in self.numbers.tolist()]
        if self.words is not None:
            found = [
                f if w is None else str(w) for f, w in zip(found, self.words.tolist(), strict=True)
            ]
        return found


@dataclass(frozen=True)
class Table:
    """The rows of a file, or of one owner in it.

    Attributes:
        source: The file, as messages name it.
        columns: Name -> cells, n each.
        rows: Where the rows stand in the file, shape (n,).
        unit: What messages call a place: ``line`` of a text, which counts from 1 with the header, or
            ``row``, which counts from 1 without it.
        array: The one array of a file that is no table, such as images, shape (n, ...).
    """

    source: str
    columns: dict[str, Column]
    rows: npt.NDArray[np.int64]
    unit: str = "row"
    array: npt.NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, rows: npt.NDArray[np.int64]) -> Table:
        """Return some of the rows."""
        columns = {name: column.take(rows) for name, column in self.columns.items()}
        array = None if self.array is None else self.array[rows]
        return replace(self, columns=columns, rows=self.rows[rows], array=array)

    def without(self, names: Collection[str]) -> Table:
        """Return all but some columns."""
        left = {name: column for name, column in self.columns.items() if name not in names}
        return replace(self, columns=left)

    def place(self, row: int, column: str) -> str:
        """Name a cell, the row by its position in this table."""
        return f"{self.source}, {self.unit} {self.rows[row]}, column {column}"

    def first(self, where: npt.NDArray[np.bool_], column: str) -> str:
        """Name the first of some cells."""
        return self.place(int(np.flatnonzero(where)[0]), column)


def written(number: float) -> str:
    """Write a number as a class or a category is called: whole ones without a point."""
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)


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


def column_of(cells: Sequence[str]) -> Column:
    """Tell the numbers among cells from the words, and both from what is missing."""
    stripped = [cell.strip() for cell in cells]
    try:
        return Column(np.fromiter(map(_number, stripped), np.float64, len(stripped)))
    except ValueError:  # there are words among them
        pass
    numbers = np.full(len(stripped), np.nan)
    words = np.full(len(stripped), None, dtype=object)
    for place, cell in enumerate(stripped):
        try:
            numbers[place] = _number(cell)
        except ValueError:
            words[place] = cell
    return Column(numbers, words)


def _number(cell: str) -> float:
    if cell in MISSING:
        return np.nan
    if "_" in cell:  # which Python would take for 1_000
        raise ValueError(cell)
    return float(cell)


def _read_csv(path: Path, ignore: frozenset[str]) -> Table:
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise FedexpError(
            f"{path}, line {line}: byte {content[error.start]:#04x} is not UTF-8; save the file as "
            "UTF-8 (in a spreadsheet: CSV UTF-8)"
        ) from error
    head = next((line for line in text.splitlines() if line.strip()), "")
    if not head:
        raise FedexpError(f"{path} is empty: its first line must name the columns")
    separator = max(_SEPARATORS, key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    names: list[str] = []
    rows: list[list[str]] = []
    lines: list[int] = []
    line = 1
    try:
        for cells in reader:
            is_blank = not any(cell.strip() for cell in cells)
            if not names and not is_blank:
                names = [cell.strip() for cell in cells]
            elif len(cells) == len(names) and not is_blank:
                rows.append(cells)
                lines.append(line)
            elif not is_blank:
                raise FedexpError(
                    f"{path}, line {line}: {len(cells)} cells where the first line names "
                    f"{len(names)} columns; a cell that holds {separator!r} must stand in quotes"
                )
            line = reader.line_num + 1
    except csv.Error as error:
        raise FedexpError(f"{path}, line {line}: {error}; correct the quotes") from error
    _check_names(path, names)
    cells_of = zip(names, zip(*rows, strict=True), strict=True) if rows else ()
    columns = {name: column_of(cells) for name, cells in cells_of if name not in ignore}
    return Table(str(path), columns, np.array(lines, dtype=np.int64), "line")


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
