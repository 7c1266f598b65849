"""The rows of one owner, read where they lie: what it tells of them, and the examples that it makes.

An owner answers three questions, each of which needs the answers of all owners to the one before
(``fedexp.data.surveying``). It answers in counts, sums, names of columns and words of categories.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fedexp.core.options import FedexpError
from fedexp.data.agreement import Agreement, Asked, schema_of
from fedexp.data.assembling import TEST
from fedexp.data.assignment import Assignment
from fedexp.data.columns import (
    AUTO,
    CLASSIFICATION,
    FEW,
    MAX_CATEGORIES,
    REGRESSION,
    Cells,
    Schema,
    Survey,
    encode,
    survey,
)
from fedexp.data.examples import Examples
from fedexp.data.held_out import hold_out
from fedexp.data.own_files import files_in
from fedexp.data.scaling import applied, squares, sums
from fedexp.data.table import Table
from fedexp.data.table_files import SUFFIXES, read_table


@dataclass(frozen=True)
class OwnRows:
    """The rows of one owner.

    Attributes:
        owner: What it is called.
        train: Its rows.
        test: Its test rows, where they have a file of their own.
        asked: How they are to be read.
    """

    owner: str
    train: Table
    test: Table | None
    asked: Asked

    def told(self) -> dict[str, Any]:
        """Answer the first question: what columns there are, and which words they hold."""
        asked = self.asked
        found = survey(self.train, asked.target, asked.categories, quoting=False)
        return {
            "owner": self.owner,
            "rows": len(self.train),
            "test_rows": None if self.test is None else len(self.test),
            "columns": {name: _plain(cells) for name, cells in found.columns.items()},
            **_plain_targets(found, asked.predict),
        }

    def summed(self, schema: Schema, before: int) -> dict[str, Any]:
        """Answer the second question: how many examples there are, and what their inputs sum to.

        Args:
            schema: What all owners agreed on.
            before: Rows of the owners before this one.
        """
        train, test = self.examples(schema, before)
        # The sum of a category would say how many patients have it, and nobody needs that.
        counts, total = (np.where(schema.is_number, n, 0.0) for n in sums(train.inputs))
        targets = test.targets if not schema.classes else np.empty(0)
        return {
            "train": len(train),
            "test": len(test),
            "counts": counts.tolist(),
            "sums": total.tolist(),
            "target_squares": float(np.square(targets, dtype=np.float64).sum()),
        }

    def squared(self, schema: Schema, before: int, mean: Any) -> dict[str, Any]:
        """Answer the third question: what the squares about the agreed mean sum to."""
        train, _ = self.examples(schema, before)
        found = np.where(schema.is_number, squares(train.inputs, mean), 0.0)
        return {"squares": found.tolist()}

    def examples(self, schema: Schema, before: int) -> tuple[Examples, Examples]:
        """Return training and test examples, numbers not scaled yet, missing ones NaN.

        Args:
            schema: What all owners agreed on.
            before: Rows of the owners before this one.
        """
        found = Examples(*encode(self.train, schema))
        if self.test is not None:
            return found, Examples(*encode(self.test, schema))
        held = Assignment.of([np.arange(len(found), dtype=np.int64)])
        labels: Any = found.targets if schema.classes else None
        asked = self.asked
        kept, out = hold_out(
            held, labels, asked.test_fraction, asked.split_seed, "test_split", skip=before
        )
        return found.subset(kept.indices), found.subset(out.indices)

    def agreed(self, agreement: Agreement, scaled: Any) -> tuple[Examples, Examples]:
        """Return training and test examples as models see them.

        Args:
            agreement: What all owners agreed on.
            scaled: Which columns are scaled, shape (columns,).

        Raises:
            FedexpError: If the file has other rows than when it was agreed.
        """
        client = agreement.owners.index(self.owner)
        train, test = self.examples(agreement.schema, agreement.before(client))
        now = len(self.train), len(train), len(test)
        then = agreement.rows[client], agreement.num_train[client], agreement.num_test[client]
        if now != then:
            raise FedexpError(
                f"{self.owner} has {now[0]} rows now ({now[1]} to train on), and had {then[0]} "
                f"({then[1]}) when the nodes were surveyed: survey them again (fedexp survey)"
            )
        fitted = [
            Examples(applied(part.inputs, agreement.scaling, scaled), part.targets)
            for part in (train, test)
        ]
        return fitted[0], fitted[1]


def read_own(path: Path, owner: str | None, asked: Asked) -> OwnRows:
    """Read the rows of one owner.

    Args:
        path: Its file, or a folder with that file and, in its folder ``test``, one of test rows.
        owner: What it is called; None is the name of the file, without its ending.
        asked: How the rows are to be read.

    Raises:
        FedexpError: If they cannot be; it names the owner in place of the path.
    """
    if not path.exists():
        raise FedexpError(
            f"{owner or path.stem}: its file is not there any more (--node-config 'data=\"PATH\"')"
        )
    with _nameless(path, owner or path.stem):
        train = _only_table(path, asked)
        given = path / TEST
        test = _only_table(given, asked) if given.is_dir() else None
    name = owner or Path(train.source).stem
    return OwnRows(
        name, replace(train, source=name), test and replace(test, source=f"{name}/{TEST}"), asked
    )


def owner_of(path: Path, named: str | None) -> str:
    """Return what the client is called whose file is at a path.

    Args:
        path: Its file or folder.
        named: What it is called, if somebody says so; else it is called as its file.

    Raises:
        FedexpError: If its folder holds no such file.
    """
    if named is not None or not path.is_dir():
        return named or path.stem
    with _nameless(path, path.stem):
        return files_in(path)[0].stem


def asked_in(content: Mapping[str, Any]) -> Asked:
    """Return what a question says of how rows are to be read; a question is not believed, either.

    Raises:
        FedexpError: If it is no such question.
    """
    try:
        found = Asked(
            str(content["target"]),
            str(content["predict"]),
            tuple(map(str, content["categories"])),
            tuple(map(str, content["ignore"])),
            float(content["test_fraction"]),
            int(content["split_seed"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise FedexpError(f"the question cannot be read ({error})") from error
    known = found.predict in (AUTO, CLASSIFICATION, REGRESSION)
    if not known or not 0 < found.test_fraction < 1 or found.split_seed < 0:
        raise FedexpError("the question cannot be read (a value is not allowed)")
    return found


def answered(rows: OwnRows, kind: str, question: Mapping[str, Any]) -> dict[str, Any]:
    """Answer a question.

    Args:
        rows: The owner's.
        kind: Which of the three it is: the name of the method.
        question: What it says.

    Raises:
        FedexpError: If it cannot be answered.
    """
    if kind == "told":
        return rows.told()
    try:
        schema, before = schema_of(question["schema"]), int(question["before"])
        mean = np.array([float(number) for number in question.get("mean", ())])
    except (KeyError, TypeError, ValueError) as error:
        raise FedexpError(f"the question cannot be read ({error})") from error
    if kind == "summed":
        return rows.summed(schema, before)
    if mean.shape != (len(schema.names),):
        raise FedexpError("the question cannot be read (a mean for every column, please)")
    return rows.squared(schema, before, mean)


@contextmanager
def _nameless(path: Path, name: str) -> Iterator[None]:
    """Run a block that reads files; what is wrong is told without saying where they are."""
    try:
        yield
    except FedexpError as error:
        raise FedexpError(str(error).replace(str(path), name)) from error


def _only_table(path: Path, asked: Asked) -> Table:
    files = files_in(path)
    if len(files) > 1 or files[0].is_dir():
        raise FedexpError(
            f"{path} must hold one file ({', '.join(SUFFIXES)}), the rows of one client; it holds "
            f"{len(files)}"
        )
    table = read_table(files[0], asked.ignore)
    if table.array is not None:
        raise FedexpError(
            f"{path} holds an array of inputs: files on nodes must be tables, a column for every number"
        )
    return table


def _plain(cells: Cells) -> dict[str, Any]:
    """Return what is told of a column; of one with too many words, as of names, none of them."""
    many = len(cells.categories) > MAX_CATEGORIES
    return {
        "numbers": cells.numbers,
        "words": cells.words,
        "categories": None if many else sorted(cells.categories),
        "a_number": cells.a_number,
        "a_word": cells.a_word,
    }


def _plain_targets(found: Survey, predict: str) -> dict[str, Any]:
    """Return what is told of the target; where it makes a regression, none of its numbers."""
    whole = all(number.is_integer() for number in found.targets)
    many = predict == REGRESSION or (predict == AUTO and not (whole and len(found.targets) <= FEW))
    return {
        "targets": None if many and found.targets else sorted(found.targets),
        "target_words": sorted(found.target_words),
        "a_word": found.a_word,
    }
