"""MNIST, as torchvision has it."""

from __future__ import annotations

import string
from dataclasses import dataclass

from fedexp.data.torchvision_files import Source, idx_source
from fedexp.datasets.base import TorchvisionDataset, grey, register

DIGITS = tuple(string.digits)


@register
@dataclass(frozen=True)
class Mnist(TorchvisionDataset):
    """70,000 handwritten digits (LeCun et al. 1998, Proc. IEEE 86).

    Pixels are normalised by 0.5 and 0.5, as the course lesson does, not by their own mean and standard
    deviation.
    """

    facts = grey(DIGITS)

    name: str = "mnist"

    @property
    def source(self) -> Source:
        """The four idx files."""
        return idx_source("MNIST")
