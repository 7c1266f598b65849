"""Kim's convolutions over words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fedexp.core.options import Plan, ranged
from fedexp.data.examples import Spec
from fedexp.models.base import TOKENS, WHOLE, Model, register
from fedexp.models.sequences import convolutions_over_words

if TYPE_CHECKING:
    from torch import nn


@register
@dataclass(frozen=True)
class TextCnn(Model):
    """The CNN of Kim, arXiv 1408.5882: filters of several widths, each by its maximum over the text.

    Departures: embeddings are learned from scratch, not read from word2vec ("CNN-rand"), of 64 numbers
    where the paper has 300; texts are padded by half a filter; no bound on the norm of weights.
    """

    kinds = (TOKENS,)
    tasks = WHOLE

    name: str = "textcnn"
    embedding: int = ranged(64, ge=1)
    """Numbers that stand for a token."""
    filters: int = ranged(100, ge=1)
    """Filters of every width."""
    widths: list[int] = field(default_factory=lambda: [3, 4, 5])
    """How many tokens in a row a filter looks at."""
    dropout: float = ranged(0.5, ge=0, lt=1)
    """Share of the maxima that a training step sets to 0."""

    def errors(self, plan: Plan) -> Iterable[str]:
        """Filters look at tokens."""
        if not self.widths or any(width < 1 for width in self.widths):
            yield f"model.widths must hold numbers of tokens >= 1, got {list(self.widths)}"

    def build(self, spec: Spec) -> nn.Module:
        """Return the layers."""
        return convolutions_over_words(
            spec, self.embedding, self.filters, self.widths, self.dropout
        )
