"""What owners have agreed on whose rows nobody else sees: columns, scaling, and how many rows there are.

It is all that the server of a run knows of their data, and all that an owner needs to make examples of
its rows. It is plain words and numbers, so that it can be written down, read by people, and sent.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fedexp.core.options import FedexpError
from fedexp.data.assembling import FRACTION
from fedexp.data.columns import AUTO, Input, Schema
from fedexp.data.examples import Spec
from fedexp.data.scaling import Scaling


@dataclass(frozen=True)
class Asked:
    """How rows are to be read; the options of ``dataset=on_nodes`` that owners must know."""

    target: str = "target"
    predict: str = AUTO
    categories: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    test_fraction: float = FRACTION
    split_seed: int = 0

    def plain(self) -> dict[str, Any]:
        """Return it as words, numbers and lists of them."""
        return {
            "target": self.target,
            "predict": self.predict,
            "categories": list(self.categories),
            "ignore": list(self.ignore),
            "test_fraction": self.test_fraction,
            "split_seed": self.split_seed,
        }


@dataclass(frozen=True, eq=False)
class Agreement:
    """What owners have agreed on.

    Attributes:
        owners: Their names, in the order of clients.
        rows: Rows that each owner's file has, those that are split off for tests included.
        num_train: Training examples of each.
        num_test: Test examples of each.
        tests_given: Whether owners have test rows in a file of its own.
        schema: Columns, categories and classes.
        scaling: Mean and deviation of every column.
        mean_square: Of the targets of the test examples, in a regression; 0 elsewhere.
        asked: How their rows were read.
    """

    owners: tuple[str, ...]
    rows: tuple[int, ...]
    num_train: tuple[int, ...]
    num_test: tuple[int, ...]
    tests_given: bool
    schema: Schema
    scaling: Scaling
    mean_square: float = 0.0
    asked: Mapping[str, Any] = field(default_factory=dict)

    @property
    def spec(self) -> Spec:
        """What is known of the examples of all owners together."""
        classes = self.schema.classes
        return Spec(
            (len(self.schema.names),),
            classes,
            sum(self.num_train),
            sum(self.num_test),
            values=0 if classes else 1,
            owners=self.owners,
        )

    @property
    def sha256(self) -> str:
        """Hash of all of it."""
        return hashlib.sha256(json.dumps(self.plain(), sort_keys=True).encode()).hexdigest()

    def before(self, client: int) -> int:
        """Return how many rows the files of the clients before one have."""
        return sum(self.rows[:client])

    def plain(self) -> dict[str, Any]:
        """Return it as words, numbers and lists of them; numbers keep every bit as JSON and YAML."""
        return {
            "owners": list(self.owners),
            "rows": list(self.rows),
            "num_train": list(self.num_train),
            "num_test": list(self.num_test),
            "tests_given": self.tests_given,
            **plain_schema(self.schema),
            "mean": self.scaling.mean.tolist(),
            "deviation": self.scaling.scale.tolist(),
            "mean_square": self.mean_square,
            "asked": dict(self.asked),
        }


def agreement_of(content: Mapping[str, Any]) -> Agreement:
    """Return what :meth:`Agreement.plain` wrote down.

    Raises:
        FedexpError: If it is not that.
    """
    try:
        rows, num_train, num_test = (
            tuple(map(int, content[name])) for name in ("rows", "num_train", "num_test")
        )
        mean, deviation = (
            np.array([float(number) for number in content[name]]) for name in ("mean", "deviation")
        )
        found = Agreement(
            tuple(map(str, content["owners"])),
            rows,
            num_train,
            num_test,
            bool(content["tests_given"]),
            schema_of(content),
            Scaling(mean, deviation),
            float(content["mean_square"]),
            dict(content["asked"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise FedexpError(
            f"dataset.agreed is not what fedexp survey writes ({type(error).__name__}: {error}): survey "
            "the nodes again"
        ) from error
    of_owners = {len(found.owners), len(rows), len(num_train), len(num_test)}
    of_columns = {len(found.schema.names), len(mean), len(deviation)}
    if len(of_owners) > 1 or len(of_columns) > 1:
        raise FedexpError(
            "dataset.agreed has lists of different lengths: survey the nodes again (fedexp survey)"
        )
    return found


def plain_schema(schema: Schema) -> dict[str, Any]:
    """Return a schema as words and lists of them."""
    inputs = [[name, list(categories)] for name, categories in schema.inputs]
    return {"target": schema.target, "inputs": inputs, "classes": list(schema.classes)}


def schema_of(content: Mapping[str, Any]) -> Schema:
    """Return what :func:`plain_schema` wrote down.

    Raises:
        KeyError, TypeError or ValueError: If it is not that.
    """
    inputs = tuple(
        Input(str(name), tuple(map(str, categories))) for name, categories in content["inputs"]
    )
    return Schema(str(content["target"]), inputs, tuple(map(str, content["classes"])))


def in_order(owners: Sequence[str]) -> list[str]:
    """Put owners into the order of clients: by number where all are numbers, else by name."""
    return sorted(owners, key=int if all(name.isdecimal() for name in owners) else str)
