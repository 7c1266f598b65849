"""Saved states: the same values, types and bits come back, and nothing else is taken for one."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fedexp.core.state import UnsavableError, is_code, pack, unpack


def _same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray | np.generic):
        same_form = one.dtype == other.dtype and one.shape == other.shape
        return bool(same_form and one.tobytes() == other.tobytes())
    if isinstance(one, dict):
        return list(one) == list(other) and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, float) and math.isnan(one):
        return math.isnan(other)
    return bool(one == other and (isinstance(one, set | frozenset) or repr(one) == repr(other)))


_DTYPES = ["bool", "int8", "int64", "uint8", "uint64", "float16", "float32", "float64"]
_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | arrays.arrays(st.sampled_from(_DTYPES), arrays.array_shapes(min_dims=0, min_side=0))
    | st.floats(width=32).map(np.float32)
)
_KEYS = st.integers() | st.text("ab/0:", max_size=4)
_STATES = st.dictionaries(
    st.text("ab/0:", max_size=4),
    st.recursive(
        _LEAVES,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.lists(inner, max_size=3).map(tuple)
            | st.dictionaries(_KEYS, inner, max_size=3)
            | st.sets(_KEYS, max_size=3)
            | st.frozensets(_KEYS, max_size=3)
        ),
        max_leaves=8,
    ),
    max_size=4,
)


@given(_STATES)
@settings(max_examples=60, deadline=None)
def test_whatever_is_saved_comes_back(state: dict[str, Any]) -> None:
    assert _same(unpack(pack(state)), state)


def test_names_that_read_alike_are_kept_apart() -> None:
    one, other = np.array([1.0]), np.array([2.0])
    found = unpack(pack({"a": {"b/c": one, "b": {"c": other}, 1: one, "1": other}}))["a"]
    assert [found["b/c"][0], found["b"]["c"][0], found[1][0], found["1"][0]] == [1, 2, 1, 2]


def test_arrays_can_be_written_to_afterwards() -> None:
    found = unpack(pack({"sum": np.zeros(3), "columns": np.ones((2, 3)).T}))
    found["sum"] += 1.0
    assert found["sum"].tolist() == [1.0, 1.0, 1.0]
    assert found["columns"].shape == (3, 2)


@pytest.mark.parametrize("name", ["PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"])
def test_a_generator_goes_on_where_it_stood(name: str) -> None:
    generator = np.random.Generator(getattr(np.random, name)(3))
    generator.integers(5, dtype=np.int32)  # leaves half a number behind
    restored = unpack(pack({"generator": generator}))["generator"]
    assert restored.integers(9, size=5, dtype=np.int32).tolist() == (
        generator.integers(9, size=5, dtype=np.int32).tolist()
    )


class _Pair(NamedTuple):
    one: int
    other: int


@pytest.mark.parametrize(
    "value",
    [
        Counter("ab"),
        OrderedDict(a=1),
        _Pair(1, 2),
        object(),
        b"bytes",
        1j,
        np.zeros(2, "complex64"),
        np.zeros(2, ">f4"),
        np.array(["a"]),
        np.array([None]),
        np.ma.array([1.0]),
        {True: 1},
        {(1, 2): 1},
        {1.5},
    ],
)
def test_what_would_come_back_as_something_else_is_refused(value: Any) -> None:
    with pytest.raises(UnsavableError, match="deep/er"):
        pack({"deep": {"er": value}})


@pytest.mark.parametrize(
    "change",
    [
        lambda content: b"",
        lambda content: content[:20],
        lambda content: content[:-1],
        lambda content: content + b"\0",
        lambda content: b"\xff" * 16 + content[16:],
        lambda content: content[:-4] + bytes([content[-4] ^ 1]) + content[-3:],
        lambda content: content.replace(b'\\"round\\": 3', b'\\"round\\": 4'),
        lambda content: content.replace(b'"F32"', b'"I32"'),
        lambda content: b"\x02\0\0\0\0\0\0\0{}",
    ],
)
def test_a_damaged_file_is_noticed(change: Any) -> None:
    content = pack({"weights": {"w": np.ones(4, np.float32)}, "round": 3})
    assert change(content) != content
    with pytest.raises(ValueError, match="damaged"):
        unpack(change(content))


class _Callable:
    def __call__(self) -> None: ...


def test_code_is_told_from_objects_that_can_be_called() -> None:
    assert all(map(is_code, [len, test_a_damaged_file_is_noticed, "".join, int, partial(int, 3)]))
    assert not is_code(_Callable())
    assert not is_code(3)
