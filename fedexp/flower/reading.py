"""Reading arrays that clients sent: nothing in them is believed."""

from __future__ import annotations

import io
from typing import Any

import flwr.app
import numpy as np
import numpy.typing as npt

from fedexp.core.replies import told
from fedexp.flower.messages import Array, dtype_name

_NPY_HEADER = 1024
"""Bytes that the header of a ``.npy`` file may have."""


class UnreadableError(Exception):
    """An array of a message that is not what it says, or not what it must be."""


def read_array(name: str, array: flwr.app.Array, like: npt.NDArray[Any] | None) -> npt.NDArray[Any]:
    """Return an array of a message, having looked at every word of it; nothing in it is believed.

    Args:
        name: Its name, for the error.
        array: Label and bytes, which may contradict each other.
        like: What it must agree with in shape and dtype; None where nothing is known.

    Raises:
        UnreadableError: If it does not, or its bytes are no array.
    """
    shape = tuple(array.shape)
    if like is not None and (array.dtype != dtype_name(like.dtype) or shape != like.shape):
        raise UnreadableError(
            f"{name} is {array.dtype}{shape}, the model's is {like.dtype}{like.shape}"
        )
    found = array.numpy() if isinstance(array, Array) else _from_bytes(name, array, like)
    if found.dtype.kind not in "biuf":
        raise UnreadableError(f"{name} is {found.dtype}, which is no number")
    if dtype_name(found.dtype) != array.dtype or found.shape != shape:
        raise UnreadableError(
            f"{name} is said to be {array.dtype}{shape}, and is {found.dtype}{found.shape}"
        )
    return found


def _from_bytes(
    name: str, array: flwr.app.Array, like: npt.NDArray[Any] | None
) -> npt.NDArray[Any]:
    if array.stype != "numpy.ndarray":
        raise UnreadableError(f"{name} is packed as {array.stype!r}, not as numpy.ndarray")
    size = len(array.data)
    if like is not None and not 0 <= size - like.nbytes <= _NPY_HEADER:
        raise UnreadableError(f"{name} has {size} bytes, the model's has {like.nbytes}")
    buffer = io.BytesIO(array.data)
    try:
        found: npt.NDArray[Any] = np.load(buffer, allow_pickle=False)
    except Exception as error:
        raise UnreadableError(f"{name} cannot be read: {told(error)}") from error
    if buffer.tell() != size:
        raise UnreadableError(f"{name} has {size - buffer.tell()} bytes after its end")
    return found
