"""Arrays, numbers and words, nested as they come, as one file: safetensors with JSON beside the arrays.

Nothing in such a file is code, and reading one runs none.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

_TREE, _SUM = "fedexp", "sha256"
"""Where the JSON and the hash stand among the metadata of a file."""

Arrays = dict[str, npt.NDArray[Any]]


class UnsavableError(TypeError):
    """A value that cannot be saved; the message says which, and what can."""


def pack(state: Mapping[str, Any]) -> bytes:
    """Render a state as the bytes of a safetensors file.

    Args:
        state: Name -> array, number, word, None, or dictionaries (of words or whole numbers), lists,
            tuples and sets of them.

    Raises:
        UnsavableError: If it holds anything else.
    """
    from safetensors.numpy import save

    arrays: Arrays = {}
    tree = {name: _encode(value, name, arrays) for name, value in state.items()}
    text = json.dumps(tree, allow_nan=False)
    return save(arrays, {_TREE: text, _SUM: _digest(text, arrays)})


def unpack(content: bytes) -> dict[str, Any]:
    """Return what :func:`pack` rendered: the same values, types and bits.

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
            raise ValueError("a file of saved states that is damaged: its content was changed")
        return {name: _decode(value, arrays) for name, value in json.loads(told[_TREE]).items()}
    except (SafetensorError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"no file of saved states, or cut short: {error}") from error


def _digest(text: str, arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """Hash what a file holds; safetensors itself would not notice a changed byte."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()


def _encode(value: Any, path: str, arrays: Arrays) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, np.generic):
        arrays[path] = np.asarray(value)
        return {"scalar": path}
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, np.ndarray):
        arrays[path] = np.ascontiguousarray(value).reshape(value.shape)
        return {"array": path}
    if isinstance(value, Mapping):
        return {
            "dict": [[_key(k, path), _encode(v, f"{path}/{k}", arrays)] for k, v in value.items()]
        }
    for kind in (list, tuple):
        if isinstance(value, kind):
            items = [_encode(item, f"{path}/{n}", arrays) for n, item in enumerate(value)]
            return {kind.__name__: items}
    if isinstance(value, set | frozenset):
        return {"set": sorted(_key(item, path) for item in value)}
    raise UnsavableError(
        f"{path} is a {type(value).__name__}; what can be saved are arrays, numbers, words, and "
        "dictionaries, lists, tuples and sets of them"
    )


def _key(key: Any, path: str) -> str | int:
    if isinstance(key, str | int) and not isinstance(key, bool):
        return key
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
    if kind == "set":
        return set(inner)
    if kind == "scalar":
        return arrays[inner][()]
    return float(inner) if kind == "float" else arrays[inner]
