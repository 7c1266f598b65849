"""Weights as plain NumPy arrays by name: the language in which models travel and strategies compute."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Weights = dict[str, npt.NDArray[Any]]
"""State-dict name -> array, in the model's own order and dtypes."""


def hash_weights(weights: Mapping[str, npt.NDArray[Any]]) -> str:
    """Return the SHA-256 of names, dtypes, shapes and bytes, in the model's order."""
    digest = hashlib.sha256()
    for name, array in weights.items():
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def copied(weights: Mapping[str, npt.NDArray[Any]]) -> Weights:
    """Return a copy that can be kept and written to: what clients sent may lie in memory of Ray's."""
    return {name: array.copy() for name, array in weights.items()}


def without(weights: Mapping[str, npt.NDArray[Any]], names: Collection[str]) -> Weights:
    """Return weights less some of them; nothing is copied."""
    return {name: array for name, array in weights.items() if name not in names}


def restricted(weights: Mapping[str, npt.NDArray[Any]], names: Collection[str]) -> Weights:
    """Return some of weights; nothing is copied."""
    return {name: array for name, array in weights.items() if name in names}


def completed(
    weights: Mapping[str, npt.NDArray[Any]], *others: Mapping[str, npt.NDArray[Any]]
) -> Weights:
    """Return a model's weights of which some are missing; nothing is copied.

    Args:
        weights: What there is of them.
        others: Where the rest is taken from, the first that has it; the last has every name, in order.
    """
    known = (weights, *others)
    return {name: next(one[name] for one in known if name in one) for name in others[-1]}


def named(models: Mapping[int | None, Weights], initial: Weights) -> Weights:
    """Return the global model's weights, or those of all trained clients under ``<client>/<name>``.

    Args:
        models: None -> the global model, or partition id -> a client's own.
        initial: What a client has that was never trained.
    """
    if None in models:
        return models[None]
    return {
        f"{client}/{name}": array
        for client, weights in models.items()
        if weights is not initial
        for name, array in weights.items()
    }


def restore_dtypes(
    weights: Mapping[str, npt.NDArray[Any]], reference: Mapping[str, npt.NDArray[Any]]
) -> Weights:
    """Give an aggregate the model's dtypes again; means of integer counters are rounded.

    Strategies multiply by Python and NumPy floats, which makes float64 of what was float32 or int64.
    """
    restored = {}
    for name, array in weights.items():
        dtype = reference[name].dtype if name in reference else np.asarray(array).dtype
        if np.issubdtype(dtype, np.integer) and not np.issubdtype(array.dtype, np.integer):
            array = np.rint(array)
        # NumPy makes scalars of arrays without dimensions; weights must stay arrays.
        restored[name] = np.asarray(array, dtype=dtype)
    return restored
