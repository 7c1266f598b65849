"""Weights in messages: Flower's ``Array`` without the detour through ``.npy`` bytes.

Flower packs every array into bytes at once and parses their header, as Python code, whenever the
numbers are asked for: 50 us an array, which a round of many small clients spends thousands of times.
"""

from __future__ import annotations

import copyreg
import io
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import flwr.app
import numpy as np
import numpy.typing as npt
from flwr.app import ArrayRecord, RecordDict

from fedexp.models.networks import Weights

_dtype_name = lru_cache(str)  # NumPy writes the name of a dtype in Python, 5 us each time


class Array(flwr.app.Array):
    """An array that stays one until Flower asks for bytes; never written to.

    The name is Flower's because Flower writes it into what it sends.
    """

    _array: npt.NDArray[Any]

    def __init__(self, array: npt.NDArray[Any]) -> None:
        if not array.flags.c_contiguous:
            array = np.ascontiguousarray(array)
        array = array.view()
        array.flags.writeable = False
        self.__dict__.update(
            dtype=_dtype_name(array.dtype), shape=array.shape, stype="numpy.ndarray", _array=array
        )

    @property
    def data(self) -> bytes:  # type: ignore[override]  # a plain attribute of Flower's
        """The bytes of a ``.npy`` file."""
        buffer = io.BytesIO()
        np.save(buffer, self._array, allow_pickle=False)
        return buffer.getvalue()

    def numpy(self) -> npt.NDArray[Any]:
        """Return the array itself, which is read-only."""
        return self._array

    def __deepcopy__(self, memo: object) -> Array:
        return self


copyreg.pickle(Array, lambda array: (Array, (array.numpy(),)))


def to_record(weights: Mapping[str, npt.NDArray[Any]]) -> ArrayRecord:
    """Pack weights for a message, without a copy: do not write to them any more."""
    record = ArrayRecord()
    for name, array in weights.items():
        record[name] = Array(array)
    return record


def to_weights(record: ArrayRecord) -> Weights:
    """Unpack the weights of a message; do not write to them."""
    return {name: array.numpy() for name, array in record.items()}


def weights_in(content: RecordDict, key: str) -> Weights:
    """Unpack the weights that a message holds under a key; do not write to them."""
    record = content[key]  # `array_records` would build a dictionary first
    assert isinstance(record, ArrayRecord)
    return to_weights(record)


def own(record: ArrayRecord) -> ArrayRecord:
    """Copy a record that is to be kept: on Ray the numbers of a reply lie in the object store."""
    return to_record({name: array.numpy().copy() for name, array in record.items()})
