"""Numbers that servers cannot compute with, although each of them is a number."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Arrays = Mapping[str, npt.NDArray[Any]]

NOT_FINITE = "holds NaN or infinity"
"""How the problem of weights ends that overflowed."""

HEADROOM = 1e-6
"""Share of a precision's range that replies may use: servers add them up, and multiply by rates."""

LARGEST_INTEGER = 2**53
"""Means are computed in float64, which holds no larger integer exactly."""


def size_problem(
    weights: Arrays, model: Arrays | None = None, *, squared: bool = False
) -> str | None:
    """Say why numbers cannot be computed with: NaN, infinite, or far too large.

    A number of 3e38 is finite, and the sum of two such overflows float32. So the change that a reply
    makes may be as large as the share ``HEADROOM`` of what its precision holds; and where the server
    squares changes, their norm may be as large as that share of the root.

    Args:
        weights: Arrays by name.
        model: What they are a change of; None is zero.
        squared: Whether the server squares changes.

    Returns:
        None where there is no problem.
    """
    total, odd = 0.0, False
    with np.errstate(over="ignore", invalid="ignore"):
        for array in weights.values():
            if _is_wide(array):
                flat = array.ravel()
                total += float(np.dot(flat, flat))  # one pass without a copy; NaN and infinity stay
            else:
                odd = True
        problem = _odd_problem(weights) if odd else None
        if problem or total <= _SMALL:  # what is small needs no closer look; NaN is not small
            return problem
        return _large_problem(weights, model or {}, squared)


_SMALL = float(np.finfo(np.float32).max) * HEADROOM**2


def _is_wide(array: npt.NDArray[Any]) -> bool:
    """Say whether an array is of floats of more than half precision, which has no room to spare."""
    return array.dtype.kind == "f" and array.itemsize >= 4


def _odd_problem(weights: Arrays) -> str | None:
    for name, array in weights.items():
        if array.dtype.kind in "iu" and array.size:
            least, most = (array.item(),) * 2 if array.size == 1 else (array.min(), array.max())
            if least < -LARGEST_INTEGER or most > LARGEST_INTEGER:
                return f"parameter {name} holds an integer beyond 2**53"
        elif array.dtype == np.float16 and not np.isfinite(array).all():
            return f"parameter {name} {NOT_FINITE}"
    return None


def _large_problem(weights: Arrays, model: Arrays, squared: bool) -> str | None:
    norm = 0.0
    for name, array in weights.items():
        if not _is_wide(array):
            continue
        if not np.isfinite(array).all():
            return f"parameter {name} {NOT_FINITE}"
        room = float(np.finfo(array.dtype).max)
        change = np.abs(array.astype(np.float64) - model.get(name, 0.0)).ravel()
        largest = float(change.max(initial=0.0))
        if not largest <= room * HEADROOM:
            return (
                f"parameter {name} changes by {largest:.3g}: sums of such numbers overflow "
                f"{array.dtype}"
            )
        norm = math.hypot(norm, largest * float(np.linalg.norm(change / (largest or 1.0))))
        if squared and norm > math.sqrt(room) * HEADROOM:
            return (
                f"the norm of the change is {norm:.3g}: the strategy squares it, which overflows "
                f"{array.dtype}"
            )
    return None
