"""Examples as arrays in memory, and what is known of them before they are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedexp.tasks.base import Facts


@dataclass(frozen=True)
class Examples:
    """Inputs and what is to be said of each.

    Attributes:
        inputs: Any dtype, shape (N, ...), as they are stored: images stay uint8, shape (N, channels,
            height, width), until a batch is made of them.
        targets: What the dataset's task says (``fedexp.tasks``): of a classification labels, int64, shape
            (N,), values 0 .. num_classes - 1; of a prediction of the next token int64, shape (N, T), -100
            where nothing is to be predicted; of a regression float32, shape (N,) or (N, values).
        owners: Whose each example is, int64, shape (N,), values 0, 1, ...; None where nobody says.
    """

    inputs: npt.NDArray[Any]
    targets: npt.NDArray[Any]
    owners: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def subset(self, indices: npt.NDArray[np.int64]) -> Examples:
        """Return a copy of the examples at the given positions."""
        owners = None if self.owners is None else self.owners[indices]
        # inputs[indices] may have strides by which torch takes one channel for channels side by side.
        return Examples(self.inputs.take(indices, axis=0), self.targets[indices], owners)

    @classmethod
    def joined(cls, parts: Sequence[Examples]) -> Examples:
        """Return the examples of several sets, at least one, in one; whose they are is left out."""
        inputs, targets = [part.inputs for part in parts], [part.targets for part in parts]
        return cls(np.concatenate(inputs), np.concatenate(targets))


@dataclass(frozen=True)
class Spec:
    """What is known of a dataset before it is read.

    Attributes:
        shape: Of one input: channels, height and width of an image, the length of a vector, channels and
            length of a series, or the number of tokens.
        classes: What the labels 0, 1, ... are called, one name each; none where there are no labels.
        num_train: Training examples; 0 where each client's are drawn, and nobody counts them.
        num_test: Test examples; likewise.
        vocabulary: Tokens are 0 .. vocabulary - 1; 0 where inputs are no tokens.
        values: Numbers in a target of a regression; 0 elsewhere.
        owners: What the owners 0, 1, ... of examples are called, such as hospitals; none where nobody
            says whose an example is.
        padding: The token that texts shorter than the others end with; -1 where there is none.
    """

    shape: tuple[int, ...]
    classes: tuple[str, ...]
    num_train: int
    num_test: int
    vocabulary: int = 0
    values: int = 0
    owners: tuple[str, ...] = ()
    padding: int = -1

    @property
    def num_classes(self) -> int:
        """Number of labels; labels are 0 .. num_classes - 1."""
        return len(self.classes)

    @property
    def outputs(self) -> int:
        """Numbers in a prediction: a logit a label, the values of a regression, or a logit a token."""
        return self.num_classes or self.values or self.vocabulary

    @property
    def facts(self) -> Facts:
        """What the task must know."""
        return Facts(self.classes, self.vocabulary, self.values)
