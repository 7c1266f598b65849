"""What data sets of texts share: how texts become tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fedexp.core.options import ranged
from fedexp.data.examples import Examples, Spec
from fedexp.data.loading import measure
from fedexp.data.tokenizers import (
    PADDING,
    Vocabulary,
    cut,
    cut_into_words,
    tokenizer_sha256,
    vocabulary_of,
)
from fedexp.datasets.base import Dataset
from fedexp.tasks import TOKENS
from fedexp.tasks.base import IGNORED
from fedexp.tasks.next_token import NextToken


class Texts(NamedTuple):
    """Texts, and the target of each as the dataset's task has it; none where the next token is told."""

    texts: list[str]
    targets: npt.NDArray[Any] | None = None


@dataclass(frozen=True)
class TextDataset(Dataset):
    """Texts, cut into tokens before anything is dealt; the task may be any.

    Where it is ``next_token``, every token of a text but the first is to be told from those before it.
    Without a tokenizer, a text is cut into words in small letters, and a hash puts each word into one of
    ``buckets``: nothing is learned from anybody's texts for that.
    """

    kind = TOKENS
    folders = ("tokenizer",)

    tokenizer: str = ""
    """Folder with the tokenizer.json of a pre-trained network, mostly the same as model.path; empty cuts
    texts into words."""
    length: int = ranged(128, ge=1)
    """Tokens of a text that a model sees: longer ones lose their end, shorter ones are padded."""
    buckets: int = ranged(20_000, ge=2)
    """Tokens that words share, where there is no tokenizer; 0 pads."""

    def read(self) -> tuple[Texts, Texts]:
        """Read the training and the test texts.

        Raises:
            FedexpError: If they are absent or damaged, with the file and the remedy.
        """
        raise NotImplementedError(f"dataset={self.name} does not say how it is read")

    @property
    def tokenized_by(self) -> str:
        """The tokenizer's folder."""
        return self.tokenizer

    @property
    def spec(self) -> Spec:
        """What the texts hold, and what the tokenizer knows."""
        size, padding = (
            vocabulary_of(self.tokenizer) if self.tokenizer else Vocabulary(self.buckets, PADDING)
        )
        return replace(measure(self), vocabulary=size, padding=padding)

    def version(self) -> str:
        """Differs once the tokenizer is another one."""
        if not self.tokenizer:
            return ""
        return f"{tokenizer_sha256(self.tokenizer)} {vocabulary_of(self.tokenizer).padding}"

    def load(self) -> tuple[Examples, Examples]:
        """Read the texts, and cut them."""
        parts = self.read()
        texts = [part.texts for part in parts]
        continued = self.task == NextToken.name
        length = (
            self.length + continued
        )  # a text's first token is never told, its last one never looked at
        if self.tokenizer:
            tokens, padding = cut(texts, self.tokenizer, length), vocabulary_of(self.tokenizer)[1]
        else:
            tokens, padding = (
                [cut_into_words(part, self.buckets, length) for part in texts],
                PADDING,
            )
        train, test = (
            _continued(rows, padding) if continued else Examples(rows, np.asarray(part.targets))
            for rows, part in zip(tokens, parts, strict=True)
        )
        return train, test


def _continued(tokens: npt.NDArray[np.int32], padding: int) -> Examples:
    targets = tokens[:, 1:].astype(np.int64)
    targets[targets == padding] = IGNORED
    return Examples(np.ascontiguousarray(tokens[:, :-1]), targets)
