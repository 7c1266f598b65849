"""Owners agree on columns, categories and classes; each then needs its own rows alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from fedexp.core.options import FedexpError
from fedexp.data.columns import AUTO, Schema, _in_order, agree, encode, survey
from fedexp.data.table import Table, column_of


def _table(source: str, **columns: Sequence[object]) -> Table:
    found = {
        name: column_of(["" if cell is None else str(cell) for cell in cells])
        for name, cells in columns.items()
    }
    count = len(next(iter(found.values())).numbers)
    return Table(source, found, np.arange(count) + 2, "line")


def _schema(*tables: Table, predict: str = AUTO, categories: Sequence[str] = ()) -> Schema:
    return agree([survey(t, "y", categories) for t in tables], "y", predict, categories)


NORTH = _table("north", age=[50, None, 70], sex=["f", "m", None], y=["no", "yes", "no"])
RIVER = _table("river", y=["yes", "no"], sex=["x", "f"], age=[40, 41])


def test_the_order_of_columns_and_owners_does_not_matter() -> None:
    schema = _schema(NORTH, RIVER)
    assert schema == _schema(RIVER, NORTH)
    assert schema.names == ["age", "sex=f", "sex=m", "sex=x"]
    assert schema.is_number.tolist() == [True, False, False, False]
    assert schema.classes == ("no", "yes")


def test_an_owner_needs_its_own_rows_alone() -> None:
    schema = _schema(NORTH, RIVER)
    inputs, labels = encode(NORTH, schema)
    nan = np.nan
    np.testing.assert_array_equal(inputs, [[50, 1, 0, 0], [nan, 0, 1, 0], [70, 0, 0, 0]])
    assert labels.dtype == np.int64
    assert labels.tolist() == [0, 1, 0]
    stranger = _table("late", age=[1], sex=["never seen"], y=["yes"])
    np.testing.assert_array_equal(encode(stranger, schema)[0], [[1, 0, 0, 0]])


@pytest.mark.parametrize(
    ("targets", "predict", "classes"),
    [
        ([0, 1, 1], AUTO, ("0", "1")),
        (["1.0", "0", "10", "2"], AUTO, ("0", "1", "2", "10")),
        (list(range(20)), AUTO, tuple(map(str, range(20)))),
        (list(range(21)), AUTO, ()),
        ([0.5, 1], AUTO, ()),
        ([0.5, 1], "classification", ("0.5", "1")),
        ([0, 1, 1], "regression", ()),
        ([1, "b"], AUTO, ("1", "b")),
    ],
)
def test_the_target_decides_the_task(
    targets: Sequence[object], predict: str, classes: tuple[str, ...]
) -> None:
    table = _table("t", a=range(len(targets)), y=targets)
    schema = _schema(table, predict=predict)
    assert schema.classes == classes
    _, encoded = encode(table, schema)
    if classes:
        assert encoded.dtype == np.int64
    else:
        np.testing.assert_array_equal(encoded, np.array(targets, dtype=np.float32))


def test_the_order_of_classes_is_no_accident() -> None:
    for words in (["1", "01", "1_0", "10"], ["10", "1_0", "01", "1"]):
        assert _in_order(words) == ["01", "1", "10", "1_0"]
    assert _in_order(["nano", "nan", "1"]) == _in_order(["1", "nan", "nano"])
    assert _in_order(["nan", "2", "10"]) == ["10", "2", "nan"]


def test_codes_are_categories_where_somebody_says_so() -> None:
    table = _table("t", ward=[10, 9, None, "icu"], y=[0, 1, 0, 1])
    assert _schema(table, categories=["ward"]).names == ["ward=10", "ward=9", "ward=icu"]
    codes = _table("t", ward=[10, 9, None], y=[0, 1, 0])
    assert _schema(codes, categories=["ward"]).names == ["ward=9", "ward=10"]


NUMBERS: Mapping[str, Sequence[object]] = {"age": [1, 2, 3], "y": [0, 1, 0]}


@pytest.mark.parametrize(
    ("tables", "options", "finding"),
    [
        ([_table("a", x=[1])], {}, "a has no column y: name the one that is to be predicted"),
        (
            [_table("a", x=[1, 2], y=[1, None])],
            {},
            "a, line 3, column y: the target is missing; fill it in, or take the row away",
        ),
        ([_table("a", x=[1, 2], y=[1, 1])], {}, "column y is 1 in every row"),
        (
            [_table("a", **NUMBERS), _table("b", y=[0]), _table("c", **NUMBERS)],
            {},
            "b has no column age, which a has: add it",
        ),
        (
            [_table("a", **NUMBERS), _table("b", **NUMBERS, bmi=[1, 2, 3]), _table("c", **NUMBERS)],
            {},
            "b has a column bmi, which a has not: take it away",
        ),
        (
            [_table("a", **NUMBERS), _table("b", age=[4, "old"], y=[0, 1])],
            {},
            "b, line 3, column age: 'old' is no number, and column age holds numbers elsewhere",
        ),
        (
            [_table("a", w=["x", "y", "z"], y=[0, 1, 0]), _table("b", w=[None, 7], y=[0, 1])],
            {},
            "b, line 3, column w: a number where column w holds words elsewhere",
        ),
        ([_table("a", x=[None, None], y=[0, 1])], {}, "column x is empty in every row"),
        (
            [_table("a", name=[f"p{k}" for k in range(101)], y=[k % 2 for k in range(101)])],
            {},
            "column name holds more than 100 different words, as names, identifiers and dates do",
        ),
        (
            [_table("a", x=[1, 2], y=[1.5, "x"])],
            {"predict": "regression"},
            "a, line 3, column y: a word as the target of a regression",
        ),
        (
            [_table("a", x=range(1001), y=range(1001))],
            {"predict": "classification"},
            "column y holds more than 1,000 different values",
        ),
        (
            [_table("a", **NUMBERS)],
            {"categories": ["wards"]},
            "dataset.categories: there is no column wards; there are age",
        ),
    ],
)
def test_what_does_not_go_together(
    tables: Sequence[Table], options: Mapping[str, Any], finding: str
) -> None:
    with pytest.raises(FedexpError) as caught:
        _schema(*tables, **options)
    assert str(caught.value).startswith(finding)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("table", "finding"),
    [
        (_table("c", age=[1], y=["no"]), "c has no column sex, which was agreed on"),
        (
            _table("c", age=["old"], sex=["f"], y=["no"]),
            "c, line 2, column age: a word in a column that was agreed to hold numbers",
        ),
        (
            _table("c", age=[1, 2], sex=["f", "f"], y=["no", "maybe"]),
            "c, line 3, column y: not one of the classes no, yes",
        ),
    ],
)
def test_rows_that_do_not_keep_to_what_was_agreed(table: Table, finding: str) -> None:
    with pytest.raises(FedexpError) as caught:
        encode(table, _schema(NORTH, RIVER))
    assert str(caught.value).startswith(finding)
