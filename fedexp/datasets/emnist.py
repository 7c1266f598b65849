"""EMNIST in its six splits, as torchvision has it."""

from __future__ import annotations

import string
from dataclasses import dataclass

import numpy as np

from fedexp.core.options import one_of
from fedexp.data.examples import Examples, Spec
from fedexp.data.torchvision_files import Source, emnist_source
from fedexp.datasets.base import TorchvisionDataset, grey, register
from fedexp.datasets.mnist import DIGITS

# The letters whose small form looks like the capital one share its label in `merged`.
_ALL = (*string.digits, *string.ascii_uppercase, *string.ascii_lowercase)
_MERGED = (*string.digits, *string.ascii_uppercase, *"abdefghnqrt")
_LETTERS = tuple(string.ascii_lowercase)

SPLITS = {
    "balanced": grey(_MERGED, 112_800, 18_800),
    "byclass": grey(_ALL, 697_932, 116_323),
    "bymerge": grey(_MERGED, 697_932, 116_323),
    "digits": grey(DIGITS, 240_000, 40_000),
    "letters": grey(_LETTERS, 124_800, 20_800),
    "mnist": grey(DIGITS, 60_000, 10_000),
}


@register
@dataclass(frozen=True)
class Emnist(TorchvisionDataset):
    """Handwritten digits and letters (Cohen et al., arXiv 1702.05373).

    ``split`` decides which, and how labels are merged. The constants of ``balanced`` normalise every
    split, so that splits can be compared. The files hold every image transposed, and those of
    ``letters`` count labels from 1; both are put right here.
    """

    mean = (0.1751,)
    std = (0.3332,)

    name: str = "emnist"
    split: str = one_of("balanced", *SPLITS)
    """Which characters, and how labels are merged."""

    @property
    def spec(self) -> Spec:
        """Shape, classes and sizes of the split."""
        return SPLITS[self.split]

    @property
    def source(self) -> Source:
        """The four idx files of the split."""
        return emnist_source(self.split, first_label=int(self.split == "letters"))

    def load(self) -> tuple[Examples, Examples]:
        """Read the files, and turn the images upright."""
        upright = [
            Examples(np.ascontiguousarray(part.inputs.transpose(0, 1, 3, 2)), part.targets)
            for part in super().load()
        ]
        return upright[0], upright[1]
