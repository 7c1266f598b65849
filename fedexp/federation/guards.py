"""What a reply must hold before it may enter an aggregate.

Flower's strategies check that replies agree with each other, not that they agree with the model, and
let a NaN through; one such client would silently spoil the model for all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Arrays = Mapping[str, npt.NDArray[Any]]


def weights_problem(weights: Arrays, reference: Arrays) -> str | None:
    """Say why weights must not be aggregated, or None if they may.

    Args:
        weights: What a client sent.
        reference: The global model that it was sent; decides names, shapes and dtypes.
    """
    if set(weights) != set(reference):
        missing, extra = (
            sorted(set(reference) - set(weights)),
            sorted(set(weights) - set(reference)),
        )
        return f"other parameters than the model's (missing {missing}, unexpected {extra})"
    for name, array in weights.items():
        expected = reference[name]
        if array.shape != expected.shape or array.dtype != expected.dtype:
            return (
                f"parameter {name} is {array.dtype}{array.shape}, "
                f"the model's is {expected.dtype}{expected.shape}"
            )
        if not np.isfinite(array).all():
            return f"parameter {name} holds NaN or infinity"
    return None


def restore_dtypes(weights: Arrays, reference: Arrays) -> dict[str, npt.NDArray[Any]]:
    """Give an aggregate the model's dtypes again; means of integer counters are rounded.

    Strategies multiply by Python and NumPy floats, which makes float64 of what was float32 or int64.
    """
    restored = {}
    for name, array in weights.items():
        dtype = reference[name].dtype if name in reference else array.dtype
        if np.issubdtype(dtype, np.integer) and not np.issubdtype(array.dtype, np.integer):
            array = np.rint(array)
        # NumPy makes scalars of arrays without dimensions; weights must stay arrays.
        restored[name] = np.asarray(array, dtype=dtype)
    return restored


def metrics_problem(metrics: Mapping[str, Any], weight_key: str) -> str | None:
    """Say why metrics must not be aggregated, or None if they may."""
    weight = metrics.get(weight_key)
    if not isinstance(weight, int | float) or not weight >= 0:
        return f"{weight_key} must be a number >= 0, got {weight}"
    for name, value in metrics.items():
        if not np.isfinite(value).all():
            return f"metric {name} is {value}"
    return None
