"""What the columns of a table mean: numbers, categories, a target; agreed among owners, then applied.

An owner says of its own rows what :func:`survey` finds: names of columns, whether a column holds numbers
or words, and which words. :func:`agree` makes one schema of what all say; it never sees a row. With that
schema :func:`encode` turns one owner's rows into inputs and targets, so an owner needs nobody's rows but
its own.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fedexp.core.options import FedexpError
from fedexp.data.table import Column, Table, written

AUTO, CLASSIFICATION, REGRESSION = "auto", "classification", "regression"
"""What is to be said of an input: ``dataset.predict``."""

MAX_CATEGORIES = 100
"""Words of a column from which on it is taken for names, identifiers or dates."""

FEW = 20
"""Different whole numbers up to which a target is taken for classes."""

MAX_CLASSES = 1_000


class Cells(NamedTuple):
    """What an owner says of a column.

    Attributes:
        numbers: How many cells hold a number.
        words: How many hold a word.
        categories: The different cells, where there are not too many.
        a_number: Where the first number is; empty without one.
        a_word: Where the first word is, and the word (or ``a word``); empty without one.
    """

    numbers: int
    words: int
    categories: frozenset[str]
    a_number: str
    a_word: str


@dataclass(frozen=True)
class Survey:
    """What an owner says of its rows.

    Attributes:
        source: Its file.
        columns: Of every column but the target.
        targets: The different targets that are numbers, up to a limit.
        target_words: The different targets that are words.
        a_word: Where the first of those is; empty without one.
    """

    source: str
    columns: dict[str, Cells]
    targets: frozenset[float]
    target_words: frozenset[str]
    a_word: str


class Input(NamedTuple):
    """A column that a model sees: one number, or a 0 or 1 for every category."""

    name: str
    categories: tuple[str, ...] = ()


@dataclass(frozen=True)
class Schema:
    """What all owners agree on.

    Attributes:
        target: Name of the target's column.
        inputs: The other columns, in alphabetical order, so that the order in files does not matter.
        classes: What the labels are called; none in a regression.
    """

    target: str
    inputs: tuple[Input, ...] = field(default=())
    classes: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """What the numbers of an input are called: ``age``, ``sex=female``, ``sex=male``."""
        return [
            name
            for column in self.inputs
            for name in ([f"{column.name}={c}" for c in column.categories] or [column.name])
        ]

    @property
    def is_number(self) -> npt.NDArray[np.bool_]:
        """Which of them are numbers and not categories."""
        return np.array(
            [not c.categories for c in self.inputs for _ in range(len(c.categories) or 1)],
            dtype=bool,
        )


def survey(
    table: Table, target: str, categories: Collection[str] = (), *, quoting: bool = True
) -> Survey:
    """Say what an owner's rows hold.

    Args:
        table: Its rows.
        target: Name of the target's column.
        categories: Columns whose numbers are categories, too.
        quoting: Whether to quote a word where it may have to be complained about.

    Raises:
        FedexpError: If there is no such target, or it is missing in a row.
    """
    if target not in table.columns:
        raise FedexpError(
            f"{table.source} has no column {target}: name the one that is to be predicted, "
            f"dataset.target=NAME; it has {_listed(list(table.columns))}"
        )
    told = table.columns[target]
    if told.is_missing.any():
        raise FedexpError(
            f"{table.first(told.is_missing, target)}: the target is missing; fill it in, or take the row "
            "away"
        )
    words = frozenset(word for word in (told.words if told.words is not None else ()) if word)
    found = {
        name: _cells(table, name, column, name in categories, quoting)
        for name, column in table.columns.items()
        if name != target
    }
    numbers = np.unique(told.numbers[told.is_number])[: MAX_CLASSES + 1]
    a_word = table.first(told.is_word, target) if words else ""
    return Survey(table.source, found, frozenset(numbers.tolist()), words, a_word)


def _cells(table: Table, name: str, column: Column, as_categories: bool, quoting: bool) -> Cells:
    is_number, is_word = column.is_number, column.is_word
    known: set[str] = set()
    if as_categories or is_word.any():
        known = {text for text in column.texts() if text is not None}
    a_word = ""
    if is_word.any():
        row = int(np.flatnonzero(is_word)[0])
        assert column.words is not None
        a_word = table.place(row, name) + (f": {column.words[row]!r}" if quoting else ": a word")
    return Cells(
        int(is_number.sum()),
        int(is_word.sum()),
        frozenset(sorted(known)[: MAX_CATEGORIES + 1]),
        table.first(is_number, name) if is_number.any() else "",
        a_word,
    )


def agree(
    surveys: Sequence[Survey], target: str, predict: str = AUTO, categories: Collection[str] = ()
) -> Schema:
    """Make one schema of what all owners say.

    Args:
        surveys: One an owner or file.
        target: Name of the target's column.
        predict: ``classification``, ``regression``, or ``auto``: what the target looks like.
        categories: Columns whose numbers are categories, too.

    Raises:
        FedexpError: If they do not go together.
    """
    _check_names(surveys, categories)
    inputs = tuple(
        _input(name, [told.columns[name] for told in surveys], name in categories)
        for name in sorted(surveys[0].columns)
    )
    return Schema(target, inputs, _classes(surveys, target, predict))


def _check_names(surveys: Sequence[Survey], categories: Collection[str]) -> None:
    everywhere = [set(told.columns) for told in surveys]
    for name in sorted(set().union(*everywhere)):
        lacking = [
            s.source for s, names in zip(surveys, everywhere, strict=True) if name not in names
        ]
        having = [s.source for s, names in zip(surveys, everywhere, strict=True) if name in names]
        if lacking and len(lacking) <= len(having):
            raise FedexpError(
                f"{lacking[0]} has no column {name}, which {having[0]} has: add it (its cells may be "
                f"empty), or leave it out: dataset.ignore=[{name}]"
            )
        if lacking:
            raise FedexpError(
                f"{having[0]} has a column {name}, which {lacking[0]} has not: take it away, or leave it "
                f"out: dataset.ignore=[{name}]"
            )
    for name in categories:
        if name not in everywhere[0]:
            raise FedexpError(
                f"dataset.categories: there is no column {name}; there are "
                f"{_listed(sorted(everywhere[0]))}"
            )


def _input(name: str, told: Sequence[Cells], as_categories: bool) -> Input:
    numbers, words = sum(c.numbers for c in told), sum(c.words for c in told)
    if not numbers + words:
        raise FedexpError(
            f"column {name} is empty in every row: take it away, or dataset.ignore=[{name}]"
        )
    if not words and not as_categories:
        return Input(name)
    if numbers and not as_categories:
        a_word = next(cells.a_word for cells in told if cells.a_word)
        a_number = next(cells.a_number for cells in told if cells.a_number)
        if words <= numbers:
            raise FedexpError(
                f"{a_word} is no number, and column {name} holds numbers elsewhere: correct it or empty "
                f"the cell; if its values are categories, dataset.categories=[{name}]"
            )
        raise FedexpError(
            f"{a_number}: a number where column {name} holds words elsewhere: correct it or empty the "
            f"cell; if its values are categories, dataset.categories=[{name}]"
        )
    known = frozenset[str]().union(*(cells.categories for cells in told))
    if len(known) > MAX_CATEGORIES:
        raise FedexpError(
            f"column {name} holds more than {MAX_CATEGORIES} different words, as names, identifiers and "
            f"dates do: leave it out, dataset.ignore=[{name}], or write it as numbers"
        )
    return Input(name, tuple(_in_order(known)))


def _classes(surveys: Sequence[Survey], target: str, predict: str) -> tuple[str, ...]:
    numbers = sorted(frozenset[float]().union(*(told.targets for told in surveys)))
    words = frozenset[str]().union(*(told.target_words for told in surveys))
    if len(numbers) + len(words) == 1:
        only = next(iter(words), None) or written(numbers[0])
        raise FedexpError(f"column {target} is {only} in every row: there is nothing to predict")
    whole = all(number.is_integer() for number in numbers)
    if predict == AUTO:
        predict = CLASSIFICATION if words or (whole and len(numbers) <= FEW) else REGRESSION
    if predict == REGRESSION:
        if words:
            place = next(told.a_word for told in surveys if told.a_word)
            raise FedexpError(
                f"{place}: a word as the target of a regression; write numbers, or "
                "dataset.predict=classification"
            )
        return ()
    if len(numbers) + len(words) > MAX_CLASSES:
        raise FedexpError(
            f"column {target} holds more than {MAX_CLASSES:,} different values, too many for classes: "
            "another dataset.target, or numbers and dataset.predict=regression"
        )
    return tuple(_in_order({*words, *map(written, numbers)}))


def _in_order(words: Collection[str]) -> list[str]:
    """Put words into the order of numbers if they are numbers, else of letters."""
    try:
        numbers = {word: float(word) for word in words}
    except ValueError:
        return sorted(words)
    if not all(map(math.isfinite, numbers.values())):
        return sorted(words)
    return sorted(words, key=lambda word: (numbers[word], word))  # "1" and "01" are two words


def encode(table: Table, schema: Schema) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.generic]]:
    """Turn an owner's rows into inputs and targets.

    A category is 1 in its place and 0 elsewhere; one that is missing, or that no owner has named, is 0
    everywhere. A number that is missing stays NaN until the owners' means are known.

    Args:
        table: The owner's rows.
        schema: What was agreed.

    Returns:
        Inputs, float64, shape (n, inputs); labels, int64, shape (n,), or numbers, float32, shape (n,).

    Raises:
        FedexpError: If the table has not the schema's columns, or holds what it does not allow for.
    """
    count = len(table)
    parts: list[npt.NDArray[np.float64]] = []
    for name, categories in schema.inputs:
        if name not in table.columns:
            raise FedexpError(f"{table.source} has no column {name}, which was agreed on")
        column = table.columns[name]
        if not categories:
            if column.is_word.any():
                place = table.first(column.is_word, name)
                raise FedexpError(f"{place}: a word in a column that was agreed to hold numbers")
            parts.append(column.numbers[:, None])
            continue
        places = {category: place for place, category in enumerate(categories)}
        hot = np.zeros((count, len(categories)))
        found = np.array([places.get(text or "", -1) for text in column.texts()], dtype=np.int64)
        known = np.flatnonzero(found >= 0)
        hot[known, found[known]] = 1.0
        parts.append(hot)
    inputs = np.concatenate(parts, axis=1) if parts else np.empty((count, 0))
    return inputs, encode_target(table, schema)


def encode_target(table: Table, schema: Schema) -> npt.NDArray[np.generic]:
    """Return an owner's targets; see :func:`encode`."""
    told = table.columns[schema.target]
    if not schema.classes:
        return told.numbers.astype(np.float32)
    places = {label: place for place, label in enumerate(schema.classes)}
    labels = np.array([places.get(text or "", -1) for text in told.texts()], dtype=np.int64)
    if (labels < 0).any():
        place = table.first(labels < 0, schema.target)
        raise FedexpError(f"{place}: not one of the classes {_listed(schema.classes)}")
    return labels


def _listed(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
