"""Examples as arrays in memory, and what is known of them before they are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Examples:
    """Inputs and what is to be said of each.

    Attributes:
        inputs: Any dtype, shape (N, ...), as they are stored: images stay uint8, shape (N, channels,
            height, width), until a batch is made of them.
        targets: Labels, int64, shape (N,), values 0 .. num_classes - 1.
    """

    inputs: npt.NDArray[Any]
    targets: npt.NDArray[Any]

    def __len__(self) -> int:
        return len(self.targets)

    def subset(self, indices: npt.NDArray[np.int64]) -> Examples:
        """Return a copy of the examples at the given positions."""
        return Examples(self.inputs[indices], self.targets[indices])


@dataclass(frozen=True)
class Spec:
    """What is known of a dataset before it is read.

    Attributes:
        shape: Of one input: channels, height and width of an image, or the length of a vector.
        classes: What the labels 0, 1, ... are called, one name each.
        num_train: Training examples.
        num_test: Test examples.
    """

    shape: tuple[int, ...]
    classes: tuple[str, ...]
    num_train: int
    num_test: int

    @property
    def num_classes(self) -> int:
        """Number of labels; labels are 0 .. num_classes - 1."""
        return len(self.classes)
