"""Where a round's updates wait that memory shall not hold: a file without a name, for one round.

Reading gives back what was put there, to the bit, so no result depends on what lay where.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import weakref
from collections.abc import Collection, Mapping
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fedexp.core.options import FedexpError
from fedexp.core.updates import Number, Update
from fedexp.core.weights import Weights, restricted

HELD = 256 * 2**20
"""Bytes that a round's updates may have to stay in memory; those of a larger round go to a file."""

_RECENT = 3
"""Sets of arrays that were read last and stay at hand: pages ask for the same ones name by name."""


class Spot(NamedTuple):
    """Where an array lies in a file."""

    start: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Shelf:
    """Takes in one round's updates, and hands back such as need little memory.

    The file has no name, so that it is gone with the process, or with the last update that lies in it.

    Args:
        model: The global model; what an update has of it, as the same object, is not stored.
        count: Updates that are expected.

    Raises:
        FedexpError: If the disk has no room for them.
    """

    def __init__(self, model: Weights, count: int) -> None:
        expected = count * sum(array.nbytes for array in model.values())
        self._file: IO[bytes] | None = None
        self._left = HELD if expected <= HELD else 0
        if expected > HELD:
            _ensure_room(expected)
        self._model, self._end = model, 0
        # No references to who refers to this: the file is to be gone at once, not some time.
        self._recent: list[tuple[weakref.ref[Stored], Weights]] = []

    def __del__(self) -> None:
        """Close the file, which nobody can reach any more."""
        if self._file is not None:
            self._file.close()

    def take(self, update: Update) -> Update:
        """Return an update as it is while there is room for it, or one whose arrays lie in the file.

        Raises:
            FedexpError: If the disk is full.
        """
        size = sum(
            array.nbytes
            for arrays in (update.weights, *update.arrays.values())
            for name, array in arrays.items()
            if array is not self._model.get(name)
        )
        if size <= self._left:
            self._left -= size
            return update
        further = {name: self._put(arrays) for name, arrays in update.arrays.items()}
        told = (update.num_examples, update.loss, further, update.numbers)
        return ShelvedUpdate(update.client, update.round, self._put(update.weights), *told)

    def read(self, stored: Stored) -> Weights:
        """Return arrays that lie in the file; what was read last is at hand. Not to be written to."""
        for known, arrays in self._recent:
            if known() is stored:
                return arrays
        arrays = {name: self.entry(stored, name) for name in stored.names}
        for array in arrays.values():
            array.flags.writeable = False
        self._recent = [*self._recent, (weakref.ref(stored), arrays)][-_RECENT:]
        return arrays

    def entry(self, stored: Stored, name: str, where: slice | None = None) -> npt.NDArray[Any]:
        """Return an array, or some of its coordinates, flat.

        Args:
            stored: A set of arrays.
            name: Which of them.
            where: Coordinates, in steps of 1; None is all of them, in the array's shape.
        """
        spot = stored.spots.get(name)
        if spot is None:
            own = self._model[name]
            return own.view() if where is None else own.ravel()[where]
        start, shape = spot.start, spot.shape
        if where is not None:
            first, last, _ = where.indices(math.prod(shape))
            start, shape = start + first * spot.dtype.itemsize, (max(0, last - first),)
        found = np.empty(shape, spot.dtype)
        self._read_into(found, start)
        return found

    def _put(self, arrays: Mapping[str, npt.NDArray[Any]]) -> Stored:
        spots = {}
        for name, array in arrays.items():
            if array is not self._model.get(name):
                spots[name] = Spot(self._end, array.shape, array.dtype)
                self._write(array)
        return Stored(self, tuple(arrays), spots)

    def _write(self, array: npt.NDArray[Any]) -> None:
        left = _bytes(np.ascontiguousarray(array))
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
            while left:
                written = os.pwrite(self._file.fileno(), left, self._end)
                self._end, left = self._end + written, left[written:]
        except OSError as error:
            raise FedexpError(
                f"a round's updates do not fit into {tempfile.gettempdir()}: {error.strerror}, after "
                f"{self._end / 1e9:.3g} GB. {_REMEDY}"
            ) from error

    def _read_into(self, array: npt.NDArray[Any], start: int) -> None:
        left = _bytes(array)
        while left:
            assert self._file is not None
            count = os.preadv(self._file.fileno(), [left], start)
            if not count:
                raise FedexpError(f"a file in {tempfile.gettempdir()} lost what was written to it")
            start, left = start + count, left[count:]


class Stored:
    """A set of arrays in a file.

    Attributes:
        names: Names of all, in order.
        spots: Where those lie that are not the model's own.
    """

    def __init__(self, shelf: Shelf, names: tuple[str, ...], spots: Mapping[str, Spot]) -> None:
        self._shelf, self.names, self.spots = shelf, names, spots

    def read(self) -> Weights:
        """Return all arrays."""
        return self._shelf.read(self)

    def entry(self, name: str, where: slice | None = None) -> npt.NDArray[Any]:
        """Return one of them, or some of its coordinates, flat."""
        return self._shelf.entry(self, name, where)

    def part(self, names: Collection[str]) -> Stored:
        """Return some of them."""
        return Stored(self._shelf, tuple(n for n in self.names if n in names), self.spots)


class ShelvedUpdate(Update):
    """An update whose arrays lie in a file and are read when somebody asks for them."""

    def __init__(
        self,
        client: int,
        round: int,
        weights: Weights | Stored,
        num_examples: int,
        loss: float | None = None,
        arrays: Mapping[str, Weights | Stored] | None = None,
        numbers: Mapping[str, Number] | None = None,
    ) -> None:
        vars(self).update(client=client, round=round, num_examples=num_examples, loss=loss)
        vars(self)["numbers"] = numbers or {}
        vars(self)["_weights"], vars(self)["_arrays"] = weights, arrays or {}

    @property
    def weights(self) -> Weights:
        """What the client trained, read again unless it was just read."""
        return _read(self._weights)

    @property
    def arrays(self) -> Mapping[str, Weights]:
        """Further arrays by name."""
        return {name: _read(arrays) for name, arrays in self._arrays.items()}

    def entry(self, name: str, where: slice | None = None) -> npt.NDArray[Any]:
        """Return an array of the weights, or some of its coordinates, and read nothing else."""
        if isinstance(self._weights, Stored):
            return self._weights.entry(name, where)
        return super().entry(name, where)

    def part(self, names: Collection[str]) -> Update:
        """Return the update with some of the weights' arrays."""
        some = self._weights
        some = some.part(names) if isinstance(some, Stored) else restricted(some, names)
        told = (self.num_examples, self.loss, self._arrays, self.numbers)
        return ShelvedUpdate(self.client, self.round, some, *told)

    _weights: Weights | Stored
    _arrays: Mapping[str, Weights | Stored]


def _read(arrays: Weights | Stored) -> Weights:
    return arrays.read() if isinstance(arrays, Stored) else arrays


def _bytes(array: npt.NDArray[Any]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


_REMEDY = (
    "Let TMPDIR name a folder on a disk with more, or sample fewer clients (clients.fraction_train)"
)


def _ensure_room(expected: int) -> None:
    """Refuse a round whose updates the disk cannot hold, before anybody trains."""
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if expected > free:
        raise FedexpError(
            f"a round's updates need {expected / 1e9:.3g} GB, {folder} has {free / 1e9:.3g} GB free. "
            f"{_REMEDY}"
        )
