"""Files of one's own: which there are, whose the rows are, and examples made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fedexp.core.options import FedexpError
from fedexp.data.assignment import Assignment
from fedexp.data.columns import AUTO, Schema, agree, encode, encode_target, survey
from fedexp.data.examples import Examples, Spec
from fedexp.data.held_out import hold_out
from fedexp.data.table import SUFFIXES, Table, read_table

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


def files_in(path: Path) -> list[Path]:
    """Return the tables that a path stands for: itself, or those in the folder, by name.

    Raises:
        FedexpError: If there are none, or something else lies beside them.
    """
    if not path.exists():
        raise FedexpError(
            f"dataset.path={path} is not there: name a file ({', '.join(SUFFIXES)}) or a folder of such "
            "files, one per client"
        )
    files = (
        sorted(file for file in path.iterdir() if not _is_aside(file)) if path.is_dir() else [path]
    )
    for file in files:
        if file.suffix.lower() not in SUFFIXES or not file.is_file():
            raise FedexpError(
                f"{file} is none of {', '.join(SUFFIXES)}: convert it, or take it away"
            )
    if not files:
        raise FedexpError(
            f"{path} holds no file that ends in {', '.join(SUFFIXES)}: put some there"
        )
    return files


def _is_aside(file: Path) -> bool:
    """Say whether a file in a folder of data is none: hidden, a text about them, or the test data."""
    about = file.suffix.lower() == ".md" or file.stem.upper() in ("README", "LICENSE")
    return file.name.startswith(".") or about or (file.name == TEST and file.is_dir())


def version(path: Path) -> str:
    """Return what differs once a file below a path was written, so that it is read again."""
    below = sorted(path.rglob("*")) if path.is_dir() else [path]
    seen = ((str(f), f.stat()) for f in below if f.is_file())
    return repr([(name, found.st_size, found.st_mtime_ns) for name, found in seen])


def read(path: Path, wanted: Wanted) -> Found:
    """Read the files at a path.

    Raises:
        FedexpError: With one line that says what is wrong with them, and where.
    """
    train = _by_owner(parts_of(path, wanted), wanted)
    given = path / TEST
    test = _by_owner(parts_of(given, wanted), wanted) if given.is_dir() else None
    if test is not None and wanted.test_fraction is not None:
        raise FedexpError(
            f"dataset.test_fraction={wanted.test_fraction:g}: {given} holds the test data; leave the "
            "option out, or take the folder away"
        )
    return assemble(train, test, wanted)


def parts_of(path: Path, wanted: Wanted) -> list[Part]:
    """Read the tables at a path; a folder's files are an owner's each, unless a column says whose."""
    files = files_in(path)
    stems = [file.stem for file in files]
    for stem in stems:
        if stems.count(stem) > 1:
            raise FedexpError(f"{path} holds {stem} twice, in different formats: take one away")
    named = path.is_dir() and wanted.client is None
    return [Part(file.stem if named else None, read_table(file, wanted.ignore)) for file in files]


def _by_owner(parts: Sequence[Part], wanted: Wanted) -> list[Part]:
    """Divide tables by the column that says whose a row is; return them in the order of owners."""
    found: list[Part] = list(parts)
    if wanted.client is not None:
        found = [own for part in parts for own in _divided(part.table, wanted.client)]
    return sorted(found, key=lambda part: _in_order(part.owner or "", found))


def _in_order(owner: str, parts: Sequence[Part]) -> Any:
    """Order owners by number where all are numbers, else by name."""
    return int(owner) if all((p.owner or "").isdecimal() for p in parts) else owner


def _divided(table: Table, client: str) -> list[Part]:
    if client not in table.columns:
        raise FedexpError(
            f"{table.source} has no column {client}: name the one that says whose a row is, "
            f"dataset.client=NAME; it has {', '.join(table.columns)}"
        )
    told = table.columns[client]
    if told.is_missing.any():
        raise FedexpError(
            f"{table.first(told.is_missing, client)}: it does not say whose the row is"
        )
    left = table.without([client])
    names, number = np.unique(np.array(told.texts(), dtype=str), return_inverse=True)
    order, counts = np.argsort(number, kind="stable"), np.bincount(number)
    pieces = np.split(order, np.cumsum(counts)[:-1])
    return [Part(str(name), left.take(rows)) for name, rows in zip(names, pieces, strict=True)]


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
    kind, shape = array_inputs(first)[0], array_inputs(first)[1].shape[1:]

    def of_array(table: Table) -> npt.NDArray[Any]:
        if table.array is None:
            raise FedexpError(f"{table.source} holds no array of inputs, which {first.source} does")
        inputs = array_inputs(table)[1]
        if inputs.shape[1:] != shape:
            raise FedexpError(
                f"{table.source} holds inputs of shape {inputs.shape[1:]}, {first.source} of {shape}: "
                "all must have one shape"
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
        if np.isinf(numbers).any():
            row = int(np.flatnonzero(np.isinf(numbers).reshape(len(array), -1).any(axis=1))[0])
            raise FedexpError(
                f"{table.source}, row {table.rows[row]}: infinity is no number to train on"
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
