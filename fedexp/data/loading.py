"""Read a dataset once, and say what it holds."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import fields
from typing import Any, ClassVar, Protocol

import numpy as np

from fedexp import tasks
from fedexp.core.options import FedexpError
from fedexp.data.examples import Examples, Spec
from fedexp.tasks import TOKENS
from fedexp.tasks.base import token_problem

_KEPT = 2
_NO_MATTER = ("validation", "validation_by")
"""Options of a dataset that are about what is done with what was read."""

_loaded: OrderedDict[tuple[type, str, str], tuple[Examples, Examples]] = OrderedDict()


class Readable(Protocol):
    """What can be read: a dataset's page."""

    fills: ClassVar[bool]
    remote: ClassVar[bool]

    @property
    def kind(self) -> str:
        """What an input is."""

    @property
    def task(self) -> str:
        """What is to be said of it."""

    @property
    def name(self) -> str:
        """What the command line calls it."""

    def version(self) -> str:
        """Differs once other examples would be read."""

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
    key = type(dataset), repr([getattr(page, name) for name in options]), dataset.version()
    if key not in _loaded:
        train, test = dataset.load()
        check(dataset, train, test)
        _loaded[key] = train, test
    _loaded.move_to_end(key)
    while len(_loaded) > _KEPT:
        _loaded.popitem(last=False)
    return _loaded[key]


def digest(dataset: Readable) -> str:
    """Return the SHA-256 of a dataset's examples: dtypes, shapes and bytes.

    Where they lie on nodes, it is that of what these agreed on.

    Raises:
        FedexpError: As :func:`load`.
    """
    if dataset.remote:
        return dataset.version()
    found = hashlib.sha256()
    for part in load(dataset):
        owners = () if part.owners is None else (part.owners,)
        for array in (part.inputs, part.targets, *owners):
            found.update(f"{array.dtype.str} {array.shape}\n".encode())
            found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def measure(dataset: Readable) -> Spec:
    """Say what examples hold; labels are called by their numbers."""
    parts = train, test = load(dataset)
    inputs, targets = [part.inputs for part in parts], [part.targets for part in parts]
    classes, vocabulary, values = tasks.of(dataset).facts(inputs, targets)
    if dataset.kind == TOKENS:
        vocabulary = max(vocabulary, *(1 + int(part.max()) for part in inputs))
    known = [part.owners for part in parts if part.owners is not None]
    num_owners = 1 + max(int(part.max()) for part in known) if known else 0
    owners = tuple(str(owner) for owner in range(num_owners))
    return Spec(train.inputs.shape[1:], classes, len(train), len(test), vocabulary, values, owners)


def check(dataset: Readable, train: Examples, test: Examples) -> None:
    """Check that training and test examples are examples of the dataset's task and kind at all.

    Raises:
        FedexpError: If they are not.
    """
    _check(f"dataset={dataset.name}: the training examples", dataset, train)
    _check(f"dataset={dataset.name}: the test examples", dataset, test)


def spec_problem(dataset: Readable, spec: Spec, examples: Examples) -> str | None:
    """Say what examples hold that their page does not say; None where they agree."""
    if examples.inputs.shape[1:] != spec.shape:
        return f"inputs have shape {examples.inputs.shape[1:]}; its page says {spec.shape}"
    if dataset.kind == TOKENS and examples.inputs.max() >= spec.vocabulary:
        return (
            f"inputs hold tokens up to {examples.inputs.max()}; its page says a vocabulary of "
            f"{spec.vocabulary}"
        )
    if examples.owners is not None and examples.owners.max() >= len(spec.owners):
        return f"owners are up to {examples.owners.max()}; its page names {len(spec.owners)}"
    problem = tasks.of(dataset).range_problem(examples.targets, spec.facts)
    return problem and f"targets hold {problem}"


def _check(what: str, dataset: Readable, examples: Examples) -> None:
    inputs, targets = examples.inputs, examples.targets
    if len(inputs) == 0 or len(inputs) != len(targets):
        raise FedexpError(
            f"{what} must be as many inputs as targets, one at least, got {len(inputs)} and "
            f"{len(targets)}"
        )
    problem = tasks.of(dataset).target_problem(inputs, targets)
    if problem is None and dataset.kind == TOKENS:
        problem = token_problem(inputs, "inputs")
    if problem is None:
        problem = _owner_problem(examples)
    if problem is not None:
        raise FedexpError(f"{what} must have {problem}")
    if np.issubdtype(inputs.dtype, np.floating):
        sound = ~np.isinf(inputs) if dataset.fills else np.isfinite(inputs)
        if not sound.all():
            raise FedexpError(f"{what} must be finite numbers: some inputs are NaN or infinite")


def _owner_problem(examples: Examples) -> str | None:
    """Say why an example's owner is none; None where every one is, or nobody is named."""
    owners = examples.owners
    if owners is None:
        return None
    if owners.dtype != np.int64 or owners.shape != (len(examples),) or owners.min() < 0:
        return f"an owner 0, 1, ... each (int64, shape (N,)), got {owners.dtype}{owners.shape}"
    return None
