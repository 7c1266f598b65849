"""Examples made of the owners' tables: agreed columns, kinds of inputs, test examples split off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fedexp.core.options import FedexpError
from fedexp.data.assignment import Assignment
from fedexp.data.columns import AUTO, Schema, agree, encode, encode_target, survey
from fedexp.data.examples import Examples, Spec
from fedexp.data.held_out import hold_out
from fedexp.data.table import Table
from fedexp.data.table_files import LARGEST

TEST = "test"
"""The folder that holds the test examples, where they are given."""

FRACTION = 0.2
"""Share of every owner's rows that it is tested on, where no test examples are given."""


@dataclass(frozen=True)
class Wanted:
    """How files are to be read; see the options of ``dataset=files``."""

    target: str = "target"
    client: str | None = None
    test_fraction: float | None = None
    split_seed: int = 0
    predict: str = AUTO
    categories: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    side: int | None = None


class Part(NamedTuple):
    """Rows of one owner, or of nobody known."""

    owner: str | None
    table: Table


class Found(NamedTuple):
    """What files hold.

    Attributes:
        train: Training examples, owner by owner; numbers that are missing are NaN.
        test: Test examples.
        spec: What is known of both.
        kind: What an input is.
        task: What is to be said of it.
        schema: What columns the inputs have; None where they are no table.
    """

    train: Examples
    test: Examples
    spec: Spec
    kind: str
    task: str
    schema: Schema | None


def assemble(train: Sequence[Part], test: Sequence[Part] | None, wanted: Wanted) -> Found:
    """Make examples of the owners' tables.

    Args:
        train: In the order of owners.
        test: Likewise, of owners that have training rows; None has a share of every owner's rows split
            off.
        wanted: How.

    Raises:
        FedexpError: If they do not go together.
    """
    owners = tuple(dict.fromkeys(part.owner for part in train if part.owner is not None))
    for part in test or ():
        if part.owner is not None and part.owner not in owners:
            raise FedexpError(
                f"{part.table.source}: {part.owner} has test rows and no training rows; add some, or "
                "take its test rows away"
            )
    told = [survey(part.table, wanted.target, wanted.categories) for part in train]
    schema = agree(told, wanted.target, wanted.predict, wanted.categories)
    kind, encoder = _encoder(train, schema)
    found = _examples(train, owners, schema, encoder)
    if test is None:
        found, held_out = _split(found, schema, wanted)
    else:
        held_out = _examples(test, owners, schema, encoder)
    values = 0 if schema.classes else 1
    spec = Spec(
        found.inputs.shape[1:],
        schema.classes,
        len(found),
        len(held_out),
        values=values,
        owners=owners,
    )
    task = "classification" if schema.classes else "regression"
    return Found(found, held_out, spec, kind, task, schema if schema.inputs else None)


Encoder = Callable[[Table], npt.NDArray[Any]]


def _encoder(parts: Sequence[Part], schema: Schema) -> tuple[str, Encoder]:
    """Return what kind of inputs tables hold, and what makes them of a table."""
    first = parts[0].table
    if first.array is None:
        if not schema.inputs:
            raise FedexpError(
                f"{first.source} has no column beside target and client: there is nothing to learn from"
            )
        return "vector", lambda table: encode(table, schema)[0]
    if schema.inputs:
        names = ",".join(column.name for column in schema.inputs)
        raise FedexpError(
            f"{first.source} holds columns beside an array of inputs: leave them out, "
            f"dataset.ignore=[{names}]"
        )
    kind = array_inputs(first)[0]
    shape = max(array_inputs(p.table)[1].shape[1:] for p in parts if p.table.array is not None)

    def of_array(table: Table) -> npt.NDArray[Any]:
        if table.array is None:
            raise FedexpError(f"{table.source} holds no array of inputs, which {first.source} does")
        inputs = array_inputs(table)[1]
        if kind == "image" and inputs.shape[1:] == (1, *shape[1:]):
            inputs = np.repeat(inputs, shape[0], axis=1)  # grey ones among coloured ones
        if inputs.shape[1:] != shape:
            raise FedexpError(
                f"{table.source} holds inputs of shape {inputs.shape[1:]}, others of {shape}: all must "
                f"have one shape{' (dataset.side=N resizes images)' if kind == 'image' else ''}"
            )
        return inputs

    return kind, of_array


def array_inputs(table: Table) -> tuple[str, npt.NDArray[Any]]:
    """Return what an array of inputs is, and the array as that kind has it.

    Raises:
        FedexpError: If it is nothing known.
    """
    array = table.array
    assert array is not None
    if array.dtype == np.uint8 and array.ndim in (3, 4):
        if array.ndim == 3:
            array = array[:, None]
        elif array.shape[1] not in (1, 3) and array.shape[3] in (1, 3):
            array = array.transpose(0, 3, 1, 2)
        return "image", np.ascontiguousarray(array)
    if array.dtype.kind in "iuf" and array.ndim in (2, 3):
        numbers = array.astype(np.float64)
        huge = (np.abs(numbers) > LARGEST).reshape(len(array), -1).any(axis=1)
        if huge.any():
            raise FedexpError(
                f"{table.source}, row {table.rows[np.flatnonzero(huge)[0]]}: numbers must lie between "
                "-1e30 and 1e30 to be trained on; NaN stands for a missing one"
            )
        return ("vector" if array.ndim == 2 else "series"), numbers
    raise FedexpError(
        f"{table.source} holds inputs {array.dtype}{array.shape}: they must be images (uint8, shape (N, "
        "height, width) or (N, channels, height, width)), vectors (numbers, shape (N, columns)) or "
        "series (numbers, shape (N, channels, length))"
    )


def _examples(
    parts: Sequence[Part], owners: tuple[str, ...], schema: Schema, encoder: Encoder
) -> Examples:
    number = {owner: k for k, owner in enumerate(owners)}
    inputs = np.concatenate([encoder(part.table) for part in parts])
    targets = np.concatenate([encode_target(part.table, schema) for part in parts])
    if not owners:
        return Examples(inputs, targets)
    own = [np.full(len(p.table), number[p.owner or ""], dtype=np.int64) for p in parts]
    return Examples(inputs, targets, np.concatenate(own))


def _split(found: Examples, schema: Schema, wanted: Wanted) -> tuple[Examples, Examples]:
    """Split test examples off: a share of every owner's, labels in proportion, one left to train on."""
    share = FRACTION if wanted.test_fraction is None else wanted.test_fraction
    everything = np.arange(len(found), dtype=np.int64)
    owners = np.zeros_like(everything) if found.owners is None else found.owners
    held = Assignment.of([everything[owners == k] for k in range(int(owners.max()) + 1)])
    labels = found.targets if schema.classes else None
    kept, out = hold_out(held, labels, share, wanted.split_seed, "test_split")
    if not len(out.indices):
        raise FedexpError(
            f"dataset.test_fraction={share:g} is less than one row of every owner (the largest has "
            f"{held.sizes.max()} rows): a larger share, or test data in the folder {TEST}"
        )
    return found.subset(kept.indices), found.subset(out.indices)
