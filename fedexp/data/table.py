"""Tables as columns of numbers and words; nothing is decided here about what a column is for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

MISSING = frozenset(("", "NA", "N/A", "NaN", "nan", "NAN", "null", "NULL", "?"))
"""Cells that stand for a value that nobody knows."""


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
