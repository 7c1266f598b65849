"""Kuzushiji-MNIST, as torchvision has it."""

from __future__ import annotations

from dataclasses import dataclass

from fedexp.data.torchvision_files import Source, idx_source
from fedexp.datasets.base import TorchvisionDataset, grey, register

# The syllables of the ten characters: fonts with kana are not on every machine.
SYLLABLES = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")


@register
@dataclass(frozen=True)
class Kmnist(TorchvisionDataset):
    """70,000 cursive Japanese characters in MNIST's form (Clanuwat et al., arXiv 1812.01718)."""

    facts = grey(SYLLABLES)
    mean = (0.1918,)
    std = (0.3483,)

    name: str = "kmnist"

    @property
    def source(self) -> Source:
        """The four idx files."""
        return idx_source("KMNIST")
