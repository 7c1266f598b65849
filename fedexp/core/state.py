"""Arrays, numbers and words, nested as they come, as one file: safetensors with JSON beside the arrays.

Nothing in such a file is code, and reading one runs none.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

_TREE, _SUM = "fedexp", "sha256"
"""Where the JSON and the hash stand among the metadata of a file."""

_DTYPES = frozenset("bool int8 int16 int32 int64 uint8 uint16 uint32 uint64".split()) | {
    "float16",
    "float32",
    "float64",
}
"""What safetensors and NumPy both have."""

_GENERATORS = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")

Arrays = dict[str, npt.NDArray[Any]]


class UnsavableError(TypeError):
    """A value that cannot be saved; the message says which, and what can."""


def is_code(value: object) -> bool:
    """Say whether a value is a function, a method or a class: the same in the next process, not saved.

    An object that can be called, such as a network, is none: what it holds would be lost.
    """
    return (
        inspect.isroutine(value) or inspect.isclass(value) or isinstance(value, functools.partial)
    )


def pack(state: Mapping[str, Any]) -> bytes:
    """Render a state as the bytes of a safetensors file.

    Args:
        state: Name -> array (booleans, integers, floats), number, word, None, NumPy generator, or
            dictionaries (of words or whole numbers), lists, tuples and sets of them.

    Raises:
        UnsavableError: If it holds anything else.
    """
    from safetensors.numpy import save

    arrays: Arrays = {}
    tree = {name: _encode(value, name, arrays) for name, value in state.items()}
    text = json.dumps(tree, allow_nan=False)
    return save(arrays, {_TREE: text, _SUM: _digest(text, arrays)})


def unpack(content: bytes) -> dict[str, Any]:
    """Return what :func:`pack` rendered: the same values, types and bits. Arrays can be written to.

    Raises:
        ValueError: If the content is damaged or no such file.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(content)  # looks at the whole file first
        head = int.from_bytes(content[:8], "little")
        told = json.loads(content[8 : 8 + head])["__metadata__"]
        if _digest(told[_TREE], arrays) != told[_SUM]:
            raise ValueError("damaged: its content was changed")
        return {name: _decode(value, arrays) for name, value in json.loads(told[_TREE]).items()}
    except (SafetensorError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"damaged, cut short or no checkpoint ({error})") from error


def _digest(text: str, arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """Hash what a file holds; safetensors itself would not notice a changed byte."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _encode(value: Any, path: str, arrays: Arrays) -> Any:
    # Exact types: a subclass, such as a Counter or a named tuple, would come back as another thing.
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, np.generic):
        return {"scalar": _keep(np.asarray(value), path, arrays)}
    if kind is np.ndarray:
        return {"array": _keep(value, path, arrays)}
    if kind is dict:
        return {
            "dict": [[_key(k, path), _encode(v, f"{path}/{k}", arrays)] for k, v in value.items()]
        }
    if kind in (list, tuple):
        items = [_encode(item, f"{path}/{n}", arrays) for n, item in enumerate(value)]
        return {kind.__name__: items}
    if kind in (set, frozenset):
        return {kind.__name__: [_key(item, path) for item in value]}
    if kind is np.random.Generator and value.bit_generator.state["bit_generator"] in _GENERATORS:
        return {"generator": _encode(value.bit_generator.state, path, arrays)}
    raise UnsavableError(
        f"{path} is of type {kind.__module__}.{kind.__qualname__}; what can be saved are arrays, "
        "numbers, words, NumPy generators, and dictionaries, lists, tuples and sets of them"
    )


def _keep(array: npt.NDArray[Any], path: str, arrays: Arrays) -> str:
    if str(array.dtype) not in _DTYPES:
        raise UnsavableError(
            f"{path} is an array of {array.dtype}; what can be saved are arrays of "
            f"{', '.join(sorted(_DTYPES))}"
        )
    # The number keeps apart what would be called alike, as {"a/b": ..., "a": {"b": ...}}.
    name = f"{len(arrays)}:{path}"
    arrays[name] = np.ascontiguousarray(array).reshape(array.shape)
    return name


def _key(key: Any, path: str) -> str | int:
    if type(key) in (str, int):
        return key  # type: ignore[no-any-return]
    raise UnsavableError(f"{path} has the key {key!r}; keys must be words or whole numbers")


def _decode(value: Any, arrays: Mapping[str, Any]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    if kind == "dict":
        return {key: _decode(item, arrays) for key, item in inner}
    if kind in ("list", "tuple"):
        items = [_decode(item, arrays) for item in inner]
        return items if kind == "list" else tuple(items)
    if kind in ("set", "frozenset"):
        return set(inner) if kind == "set" else frozenset(inner)
    if kind == "scalar":
        return arrays[inner][()]
    if kind == "generator":
        return _generator(_decode(inner, arrays))
    return float(inner) if kind == "float" else arrays[inner]


def _generator(state: Any) -> np.random.Generator:
    if state["bit_generator"] not in _GENERATORS:
        raise KeyError(state["bit_generator"])
    bits = getattr(np.random, state["bit_generator"])()
    bits.state = state
    return np.random.Generator(bits)
