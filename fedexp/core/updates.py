"""What clients send back in a round, one by one and together."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from fedexp.core.weights import Weights, copied, restricted

Number = int | float

BLOCK = 128 * 2**20
"""Bytes of a block of coordinates of all updates."""


@dataclass(frozen=True, eq=False)
class Update:
    """What one client sent back.

    Attributes:
        client: Partition id.
        round: The round whose model it started from.
        weights: What it trained; names, shapes and dtypes are the model's. Not to be written to.
        num_examples: Examples it trained on, >= 1.
        loss: Mean loss of its last epoch; None if it did not train.
        arrays: Further arrays by name.
        numbers: Numbers by name.
    """

    client: int
    round: int
    weights: Weights
    num_examples: int
    loss: float | None = None
    arrays: Mapping[str, Weights] = field(default_factory=dict)
    numbers: Mapping[str, Number] = field(default_factory=dict)

    def entry(self, name: str, where: slice | None = None) -> npt.NDArray[Any]:
        """Return an array of the weights, or some of its coordinates.

        Args:
            name: Which array.
            where: Coordinates of the flat array, in steps of 1; None returns it whole, in its shape.
        """
        array = self.weights[name]
        return array if where is None else array.ravel()[where]

    def part(self, names: Collection[str]) -> Update:
        """Return the update with some of the weights' arrays."""
        return dataclasses.replace(self, weights=restricted(self.weights, names))


class Updates(Sequence[Update]):
    """A round's updates, in the order of clients; every one has passed the guards.

    Of a large cohort most lie in a file: each is read when it is asked for, and forgotten again. Who goes
    through them one after another needs memory for a few models, whatever the size of the cohort;
    :meth:`blocks` is for what needs all of them at every coordinate.
    """

    def __init__(self, updates: Sequence[Update]) -> None:
        self._updates = list(updates)

    @overload
    def __getitem__(self, index: int) -> Update: ...

    @overload
    def __getitem__(self, index: slice) -> Updates: ...

    def __getitem__(self, index: int | slice) -> Update | Updates:
        found = self._updates[index]
        return Updates(found) if isinstance(found, list) else found

    def __len__(self) -> int:
        return len(self._updates)

    def __iter__(self) -> Iterator[Update]:
        return iter(self._updates)

    def only(self, positions: Sequence[int]) -> Updates:
        """Return the updates at the given positions, in that order."""
        return Updates([self._updates[position] for position in positions])

    def stacked(self, name: str) -> npt.NDArray[Any]:
        """Return an array of the weights, of all updates: shape (updates, ...)."""
        return np.stack([update.entry(name) for update in self._updates])

    def blocks(self, name: str) -> Iterator[tuple[slice, npt.NDArray[Any]]]:
        """Yield an array of the weights, of all updates, by blocks of coordinates.

        Args:
            name: Which array.

        Yields:
            Coordinates of the flat array, and their values, shape (updates, coordinates). A block of one
            coordinate there is only where the array has no more: NumPy would add it up in another order.
        """
        like = self._updates[0].entry(name)
        for where in cut(like.size, len(self) * like.itemsize):
            yield where, np.stack([update.entry(name, where) for update in self._updates])

    @property
    def shares(self) -> list[float]:
        """Each client's share of the examples; they sum to 1."""
        return shares_of([update.num_examples for update in self._updates])

    def mean(self, shares: Sequence[float] | None = None, of: str | None = None) -> Weights:
        """Return the weighted mean of the clients' weights.

        Args:
            shares: One factor per update; None weights by examples.
            of: Name of further arrays to average in place of the weights.

        Returns:
            Arrays that may be written to: ``sum(share * array)``, added in the order of clients in each
            array's own precision.
        """
        mean = Sum()
        # A factor of NumPy's would make float64 of float32.
        factors = self.shares if shares is None else [float(share) for share in shares]
        for share, update in zip(factors, self._updates, strict=True):
            mean.add(update.weights if of is None else update.arrays[of], share)
        return mean.arrays()

    def mean_loss(self) -> float | None:
        """Return the mean of the clients' training losses, weighted by examples; None if one has none."""
        losses = [update.loss for update in self._updates if update.loss is not None]
        if len(losses) < len(self._updates) or not losses:
            return None
        return weighted_mean(losses, [update.num_examples for update in self._updates])


class Summed(Updates):
    """Updates that were added up as they came: there is their mean by examples, but no arrays."""

    def __init__(self, updates: Sequence[Update], mean: Weights) -> None:
        super().__init__(updates)
        self._mean = mean

    def mean(self, shares: Sequence[float] | None = None, of: str | None = None) -> Weights:
        """Return the mean of the weights by examples.

        Raises:
            ValueError: If another one is asked for.
        """
        if shares is not None or of is not None:
            raise ValueError("of updates that were added up as they came, there is one mean")
        return copied(self._mean)


class Sum:
    """A weighted sum of named arrays, added in the order of calls, in each array's own precision."""

    def __init__(self) -> None:
        self._sum: dict[str, Any] = {}

    def add(self, arrays: Mapping[str, npt.NDArray[Any]], share: float) -> None:
        """Add arrays, multiplied by a share."""
        for name, array in arrays.items():
            if name in self._sum:
                self._sum[name] += array * share
            else:
                self._sum[name] = array * share

    def arrays(self) -> Weights:
        """Return the sum so far; its arrays may be written to."""
        return {name: np.asarray(array) for name, array in self._sum.items()}


def cut(size: int, width: int) -> list[slice]:
    """Return blocks of coordinates that take up to :data:`BLOCK` bytes, of two coordinates at least.

    Args:
        size: Coordinates in all.
        width: Bytes that one coordinate takes.
    """
    count = max(1, min(math.ceil(size * width / BLOCK), size // 2))
    edges = [size * k // count for k in range(count + 1)]
    return [slice(first, last) for first, last in itertools.pairwise(edges)]


def shares_of(counts: Sequence[float]) -> list[float]:
    """Return counts divided by their sum, which must not be 0."""
    total = sum(counts)
    return [count / total for count in counts]


def weighted_mean(values: Sequence[float], counts: Sequence[float]) -> float:
    """Return the mean of values weighted by counts, added in order."""
    terms = [value * share for value, share in zip(values, shares_of(counts), strict=True)]
    mean = terms[0]
    for term in terms[1:]:
        mean += term
    return mean
