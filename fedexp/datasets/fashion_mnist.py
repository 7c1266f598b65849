"""Fashion-MNIST, as torchvision has it."""

from __future__ import annotations

from dataclasses import dataclass

from fedexp.data.torchvision_files import Source, idx_source
from fedexp.datasets.base import TorchvisionDataset, grey, register

CLOTHES = (
    "T-shirt/top", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip


@register
@dataclass(frozen=True)
class FashionMnist(TorchvisionDataset):
    """70,000 pictures of clothes in MNIST's form (Xiao et al., arXiv 1708.07747)."""

    facts = grey(CLOTHES)
    mean = (0.2860,)
    std = (0.3530,)

    name: str = "fashion_mnist"

    @property
    def source(self) -> Source:
        """The four idx files."""
        return idx_source("FashionMNIST")
