"""Exercises that a watch on the wrist sees, by subject."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from fedexp.core.options import FedexpError
from fedexp.data.examples import Examples, Spec
from fedexp.data.package_files import package_file
from fedexp.datasets.base import Dataset, register

PACKAGE, FILE = "seglearn", "seglearn/data/watch_dataset.npy"
SHA256 = "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"
REMEDY = "pip install 'fedexp[seglearn]'"
CHANNELS, LENGTH = 6, 128
"""Acceleration along three axes and rotation about them; 128 steps at 50 a second are 2.6 s."""
SUBJECTS = 10
TRAIN_SHARE = 0.8


@register
@dataclass(frozen=True)
class Watch(Dataset):
    """Seven shoulder exercises of ten people, seen by a watch: Burns et al., arXiv 1802.01489.

    Everybody was recorded at every exercise with either arm, 140 recordings at 50 steps a second, each
    step six numbers (acceleration in g, rotation in rad/s). An example is 128 steps in a row, and its
    label the exercise; examples do not overlap. The first four fifths of a recording are for training and
    the rest for tests. ``partition=given`` makes a client of every subject.

    The file comes with the package seglearn (3-clause BSD): ``pip install 'fedexp[seglearn]'``.
    """

    kind = "series"
    facts = Spec(
        (CHANNELS, LENGTH),
        (
            "pendulum",
            "abduction",
            "forward elevation",
            "internal rotation",
            "external rotation",
            "trapezius extension",
            "upright row",
        ),
        num_train=1_413,
        num_test=420,
        owners=tuple(f"subject {k}" for k in range(1, SUBJECTS + 1)),
    )

    name: str = "watch"

    def ensure(self) -> None:
        """See to it that the package is there."""
        # The package reads a pickle, so it is asked only where the file is the published one.
        package_file(self.name, PACKAGE, FILE, REMEDY, SHA256)

    def load(self) -> tuple[Examples, Examples]:
        """Cut the recordings into examples."""
        self.ensure()
        return _cut(self.name)


@lru_cache(maxsize=1)
def _cut(dataset: str) -> tuple[Examples, Examples]:
    try:
        from seglearn.datasets import load_watch
    except ImportError as error:
        raise FedexpError(
            f"dataset={dataset}: {PACKAGE} cannot be imported ({error}): {REMEDY}"
        ) from error
    found = load_watch()
    parts: tuple[list[Examples], list[Examples]] = ([], [])
    for signal, label, subject in zip(found["X"], found["y"], found["subject"], strict=True):
        count = len(signal) // LENGTH
        windows = signal[: count * LENGTH].reshape(count, LENGTH, CHANNELS).transpose(0, 2, 1)
        cut = int(TRAIN_SHARE * count)
        for part, rows in zip(parts, (windows[:cut], windows[cut:]), strict=True):
            labels = np.full(len(rows), label, dtype=np.int64)
            owners = np.full(len(rows), subject - 1, dtype=np.int64)
            part.append(Examples(np.ascontiguousarray(rows, dtype=np.float32), labels, owners))
    train, test = (_joined(part) for part in parts)
    return train, test


def _joined(parts: list[Examples]) -> Examples:
    owners = [part.owners for part in parts if part.owners is not None]
    return Examples(
        np.concatenate([part.inputs for part in parts]),
        np.concatenate([part.targets for part in parts]),
        np.concatenate(owners),
    )
