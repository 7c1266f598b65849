"""A few examples of every kind and task, always the same ones; none is registered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedexp.data.examples import Examples, Spec
from fedexp.datasets import Dataset, ImageDataset
from fedexp.models import Model

NUM_TRAIN, NUM_TEST = 400, 40
_TEN = tuple("0123456789")


@dataclass(frozen=True)
class TinyImages(ImageDataset):
    """A few images of noise, each label's around a mean of its own."""

    facts = Spec((1, 28, 28), _TEN, NUM_TRAIN, NUM_TEST)

    name: str = "tiny_images"

    def load(self) -> tuple[Examples, Examples]:
        """Draw the images."""
        rng = np.random.default_rng(0)
        means = rng.integers(60, 180, (10, 1, 28, 28))

        def draw(count: int) -> Examples:
            labels = np.arange(count) % 10
            noise = rng.integers(-60, 60, (count, 1, 28, 28))
            return Examples((means[labels] + noise).astype(np.uint8), labels)

        return draw(NUM_TRAIN), draw(NUM_TEST)


@dataclass(frozen=True)
class TinyRows(Dataset):
    """Vectors of 12 numbers in ten clouds."""

    facts = Spec((12,), _TEN, NUM_TRAIN, NUM_TEST)

    name: str = "tiny_rows"

    def load(self) -> tuple[Examples, Examples]:
        """Draw the vectors."""
        rng = np.random.default_rng(0)
        means = rng.standard_normal((10, *self.spec.shape))

        def draw(count: int) -> Examples:
            labels = np.arange(count) % 10
            rows = means[labels] + 0.5 * rng.standard_normal((count, *self.spec.shape))
            return Examples(rows.astype(np.float32), labels)

        return draw(NUM_TRAIN), draw(NUM_TEST)


@dataclass(frozen=True)
class TinySeries(TinyRows):
    """Series of three channels and 16 steps in ten clouds."""

    kind = "series"
    facts = Spec((3, 16), _TEN, NUM_TRAIN, NUM_TEST)

    name: str = "tiny_series"


@dataclass(frozen=True)
class TinyWords(Dataset):
    """Texts of 12 tokens; a label's texts are rich in one token."""

    kind = "tokens"
    facts = Spec((12,), _TEN, NUM_TRAIN, NUM_TEST, vocabulary=20)

    name: str = "tiny_words"

    def load(self) -> tuple[Examples, Examples]:
        """Draw the tokens."""
        rng = np.random.default_rng(0)

        def draw(count: int) -> Examples:
            labels = np.arange(count) % 10
            texts = rng.integers(0, 20, (count, 12))
            texts[:, ::3] = labels[:, None]
            return Examples(texts.astype(np.int32), labels)

        return draw(NUM_TRAIN), draw(NUM_TEST)


@dataclass(frozen=True)
class TinyText(Dataset):
    """Texts of up to 12 tokens, each most often the successor of the one before."""

    task = "next_token"
    kind = "tokens"
    facts = Spec((12,), (), NUM_TRAIN, NUM_TEST, vocabulary=15)

    name: str = "tiny_text"

    def load(self) -> tuple[Examples, Examples]:
        """Draw the texts; the last places of some are empty."""
        rng = np.random.default_rng(0)

        def draw(count: int) -> Examples:
            steps = np.where(rng.random((count, 13)) < 0.8, 1, rng.integers(0, 15, (count, 13)))
            texts = steps.cumsum(axis=1) % 15
            targets = texts[:, 1:].copy()
            targets[np.arange(12) >= rng.integers(6, 13, count)[:, None]] = -100
            return Examples(texts[:, :-1].astype(np.int32), targets)

        return draw(NUM_TRAIN), draw(NUM_TEST)


@dataclass(frozen=True)
class TinyNumbers(Dataset):
    """Vectors, or what else has 12 numbers, and a noisy linear function of them."""

    task = "regression"
    facts = Spec((12,), (), NUM_TRAIN, NUM_TEST, values=1)
    values: ClassVar[int] = 0

    name: str = "tiny_numbers"

    def load(self) -> tuple[Examples, Examples]:
        """Draw inputs and targets."""
        rng = np.random.default_rng(0)
        shape = self.spec.shape
        factors = rng.standard_normal((int(np.prod(shape)), max(1, self.values)))

        def draw(count: int) -> Examples:
            inputs = rng.standard_normal((count, *shape))
            targets = inputs.reshape(count, -1) @ factors + rng.standard_normal((count, 1))
            exact = targets if self.values else targets[:, 0]
            return Examples(inputs.astype(np.float32), exact.astype(np.float32))

        return draw(NUM_TRAIN), draw(NUM_TEST)


@dataclass(frozen=True)
class TinyPairs(TinyNumbers):
    """Series with two numbers to be predicted of each."""

    kind = "series"
    facts = Spec((3, 16), (), NUM_TRAIN, NUM_TEST, values=2)
    values: ClassVar[int] = 2

    name: str = "tiny_pairs"


@dataclass(frozen=True)
class TinyBrightness(TinyImages):
    """Images, of which the brightness is to be told."""

    task = "regression"
    facts = Spec((1, 28, 28), (), NUM_TRAIN, NUM_TEST, values=1)

    name: str = "tiny_brightness"

    def load(self) -> tuple[Examples, Examples]:
        """Take the images for examples of their mean."""
        train, test = (
            Examples(part.inputs, part.inputs.mean(axis=(1, 2, 3), dtype=np.float32) / 255)
            for part in super().load()
        )
        return train, test


TINY: tuple[Dataset, ...] = (
    *(TinyImages(), TinyRows(), TinySeries(), TinyWords(), TinyText()),
    *(TinyNumbers(), TinyPairs(), TinyBrightness()),
)


def tiny_for(model: Model) -> list[Dataset]:
    """Return examples that a model takes: one data set for every task that it names.

    A model that names none is tried on a classification alone.
    """
    wanted = model.tasks or (TinyImages.task,)
    chosen: dict[str, Dataset] = {}
    for dataset in TINY:
        if dataset.task in wanted and model.takes(dataset.kind, dataset.task):
            chosen.setdefault(dataset.task, dataset)
    return list(chosen.values())
