"""Federated means and variances: every client sends sums over its own training rows, nobody sends a row.

The clients agree on the mean of every column first, from counts and sums, and then on its standard
deviation, from sums of squares about that mean. By arithmetic that is the pooled mean and variance.
Squares about 0 would lose the digits of a column whose mean is large.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fedexp.data.assignment import Holders

Floats = npt.NDArray[np.float64]


class Scaling(NamedTuple):
    """What the clients agreed on; a column of one value has the scale 1.

    Attributes:
        mean: float64, shape (columns,); 0 for a column without a known value.
        scale: Standard deviation over all clients' known values, float64, shape (columns,).
    """

    mean: Floats
    scale: Floats


def sums(inputs: npt.NDArray[Any]) -> tuple[Floats, Floats]:
    """Return what a client sends first: known values and their sum, shape (columns,) each.

    Args:
        inputs: Its training inputs, shape (n, columns) or (n, columns, length); NaN is not known.
    """
    rows = _rows(inputs)
    known = ~np.isnan(rows)
    return known.sum(axis=0, dtype=np.float64), np.where(known, rows, 0.0).sum(axis=0)


def squares(inputs: npt.NDArray[Any], mean: Floats) -> Floats:
    """Return what a client sends next: the sum of squares about the mean, shape (columns,)."""
    rows = _rows(inputs)
    found: Floats = np.square(np.where(np.isnan(rows), 0.0, rows - mean)).sum(axis=0)
    return found


def agreed(inputs: npt.NDArray[Any], held: Holders) -> Scaling:
    """Let all clients agree on mean and scale.

    Args:
        inputs: Of all training examples, shape (N, columns) or (N, columns, length).
        held: Who has which of them; what nobody has is not looked at.
    """
    own = [inputs[part] for part in held.pooled()]
    counts, mean = mean_of([sums(part) for part in own])
    return scaling_of(counts, mean, [squares(part, mean) for part in own])


def mean_of(sent: Sequence[tuple[Floats, Floats]]) -> tuple[Floats, Floats]:
    """Return how many values are known, and their mean, of what clients sent first."""
    counts, total = added([count for count, _ in sent]), added([total for _, total in sent])
    return counts, np.divide(total, counts, out=np.zeros_like(total), where=counts > 0)


def scaling_of(counts: Floats, mean: Floats, sent: Sequence[Floats]) -> Scaling:
    """Return mean and scale, of what clients sent next."""
    spread = added(sent)
    variance = np.divide(spread, counts, out=np.zeros_like(spread), where=counts > 0)
    scale = np.sqrt(variance)
    # What rounding leaves of a column of one value is no deviation.
    constant = scale <= 1e-12 * np.maximum(np.abs(mean), 1e-300)
    return Scaling(mean, np.where(constant, 1.0, scale))


def applied(
    inputs: npt.NDArray[Any], scaling: Scaling, scaled: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float32]:
    """Return inputs in which what is not known is the mean, scaled where that is asked for.

    Args:
        inputs: Shape (n, columns) or (n, columns, length); NaN is not known.
        scaling: What the clients agreed on.
        scaled: Which columns become (x - mean) / scale, shape (columns,).

    Returns:
        float32, of the same shape.
    """
    shape = (1, -1, *(1,) * (inputs.ndim - 2))
    mean, scale = scaling.mean.reshape(shape), scaling.scale.reshape(shape)
    filled = np.where(np.isnan(inputs), mean, inputs)
    return np.where(scaled.reshape(shape), (filled - mean) / scale, filled).astype(np.float32)


def described(
    names: Sequence[str],
    found: Scaling,
    is_number: npt.NDArray[np.bool_],
    scaled: npt.NDArray[np.bool_],
) -> list[dict[str, Any]]:
    """Say of every column how a raw value becomes what the model sees: (x - mean) / scale."""
    told: list[dict[str, Any]] = []
    for place, name in enumerate(names):
        mean = {"mean": float(found.mean[place])} if is_number[place] else {}
        scale = {"scale": float(found.scale[place])} if scaled[place] else {}
        told.append({"name": name, **mean, **scale})
    return told


def _rows(inputs: npt.NDArray[Any]) -> Floats:
    """Return one row for every example, or for every moment of a series."""
    rows = np.asarray(inputs, dtype=np.float64)
    return rows if rows.ndim == 2 else np.moveaxis(rows, 1, -1).reshape(-1, rows.shape[1])


def added(sent: Sequence[Floats]) -> Floats:
    """Add what clients sent, exactly rounded: the order of clients does not matter."""
    return np.array([math.fsum(column) for column in zip(*sent, strict=True)])
