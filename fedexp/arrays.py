"""Weights in messages: Flower's ``Array`` without the detour through ``.npy`` bytes.

Flower packs every array into bytes at once and parses their header, as Python code, whenever the
numbers are asked for: 50 us an array, which a round of many small clients spends thousands of times.
"""

from __future__ import annotations

import copyreg
import io
from collections.abc import Mapping
from typing import Any

import flwr.app
import numpy as np
import numpy.typing as npt
from flwr.app import ArrayRecord

from fedexp.models import Weights


class Array(flwr.app.Array):
    """An array that stays one until Flower asks for bytes; never written to.

    The name is Flower's because Flower writes it into what it sends.
    """

    _array: npt.NDArray[Any]

    def __init__(self, array: npt.NDArray[Any]) -> None:
        array = np.ascontiguousarray(array).reshape(array.shape).view()
        array.flags.writeable = False
        self.__dict__.update(
            dtype=str(array.dtype), shape=array.shape, stype="numpy.ndarray", _array=array
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


def own(record: ArrayRecord) -> ArrayRecord:
    """Copy a record that is to be kept: on Ray the numbers of a reply lie in the object store."""
    return to_record({name: array.numpy().copy() for name, array in record.items()})
