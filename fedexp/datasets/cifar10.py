"""CIFAR-10, as torchvision has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedexp.data.torchvision_files import Source, halves
from fedexp.datasets.base import TorchvisionDataset, coloured, register

if TYPE_CHECKING:
    import torch
    from torch import Tensor

PADDING = 4
"""Pixels that the usual augmentation of CIFAR adds on each side before it crops."""

_THINGS = (
    "airplane", "automobile", "bird", "cat", "deer",
    "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip


@dataclass(frozen=True)
class CifarDataset(TorchvisionDataset):
    """Small photographs."""

    augment: bool = True
    """Crop and flip training images at random."""

    def vary(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        """Crop after padding by 4 pixels, and mirror every other image."""
        from fedexp.data.augment import augment

        return augment(batch, generator, PADDING, flip=True) if self.augment else batch


@register
@dataclass(frozen=True)
class Cifar10(CifarDataset):
    """60,000 photographs of ten kinds of things (Krizhevsky 2009)."""

    facts = coloured(_THINGS)
    mean = (0.4914, 0.4822, 0.4465)
    std = (0.2470, 0.2435, 0.2616)

    name: str = "cifar10"

    @property
    def source(self) -> Source:
        """Seven files of one folder."""
        batches = (f"data_batch_{k}" for k in range(1, 6))
        files = (*batches, "test_batch", "batches.meta")
        return Source("CIFAR10", "cifar-10-batches-py", files, *halves())
