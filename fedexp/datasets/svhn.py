"""Street View House Numbers, as torchvision has it."""

from __future__ import annotations

from dataclasses import dataclass

from fedexp.data.torchvision_files import Source
from fedexp.datasets.base import TorchvisionDataset, coloured, register
from fedexp.datasets.mnist import DIGITS


@register
@dataclass(frozen=True)
class Svhn(TorchvisionDataset):
    """99,289 photographed digits (Netzer et al. 2011); the ``extra`` images are not used."""

    facts = coloured(DIGITS, 73_257, 26_032)
    mean = (0.4377, 0.4438, 0.4728)
    std = (0.1980, 0.2010, 0.1970)

    name: str = "svhn"

    @property
    def source(self) -> Source:
        """The two MATLAB files."""
        return Source(
            reader="SVHN",
            folder="",
            files=("train_32x32.mat", "test_32x32.mat"),
            train={"split": "train"},
            test={"split": "test"},
            labels="labels",
        )
