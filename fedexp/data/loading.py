"""Read a dataset once, and say what it holds."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import fields
from typing import Any, Protocol

import numpy as np

from fedexp.core.options import FedexpError
from fedexp.data.examples import Examples, Spec

_KEPT = 2
_NO_MATTER = ("validation", "validation_by")
"""Options of a dataset that are about what is done with what was read."""

_loaded: OrderedDict[tuple[type, str], tuple[Examples, Examples]] = OrderedDict()


class Readable(Protocol):
    """What can be read: a dataset's page."""

    @property
    def name(self) -> str:
        """What the command line calls it."""

    def load(self) -> tuple[Examples, Examples]:
        """Read the training and the test examples."""


def load(dataset: Readable) -> tuple[Examples, Examples]:
    """Return the training and the test examples; those of two datasets are kept for the next call.

    Raises:
        FedexpError: If the dataset is not there, is damaged, or does not hold examples.
    """
    # A cell that is run again defines another class of the name.
    page: Any = dataset
    options = [f.name for f in fields(page) if f.name not in _NO_MATTER]
    key = type(dataset), repr([getattr(page, name) for name in options])
    if key not in _loaded:
        train, test = dataset.load()
        check(f"dataset={dataset.name}", train, test)
        _loaded[key] = train, test
    _loaded.move_to_end(key)
    while len(_loaded) > _KEPT:
        _loaded.popitem(last=False)
    return _loaded[key]


def digest(dataset: Readable) -> str:
    """Return the SHA-256 of a dataset's examples: dtypes, shapes and bytes.

    Raises:
        FedexpError: As :func:`load`.
    """
    found = hashlib.sha256()
    for part in load(dataset):
        for array in (part.inputs, part.targets):
            found.update(f"{array.dtype.str} {array.shape}\n".encode())
            found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def measure(train: Examples, test: Examples) -> Spec:
    """Say what examples hold; labels are called by their numbers."""
    highest = max(int(part.targets.max()) for part in (train, test))
    names = tuple(str(label) for label in range(highest + 1))
    return Spec(train.inputs.shape[1:], names, len(train), len(test))


def check(what: str, train: Examples, test: Examples) -> None:
    """Check that training and test examples are examples at all.

    Raises:
        FedexpError: If they are not, after ``what``.
    """
    _check(f"{what}: the training examples", train)
    _check(f"{what}: the test examples", test)


def _check(what: str, examples: Examples) -> None:
    inputs, targets = examples.inputs, examples.targets
    if len(inputs) == 0 or len(inputs) != len(targets):
        raise FedexpError(
            f"{what} must be as many inputs as targets, one at least, got {len(inputs)} and "
            f"{len(targets)}"
        )
    if targets.dtype != np.int64 or targets.ndim != 1 or targets.min() < 0:
        raise FedexpError(
            f"{what} must have labels 0, 1, ... as targets (int64, shape (N,)), got {targets.dtype}"
            f"{targets.shape}"
        )
    if np.issubdtype(inputs.dtype, np.floating) and not np.isfinite(inputs).all():
        raise FedexpError(f"{what} must be finite numbers: some inputs are NaN or infinite")
