"""Gated recurrent units over tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedexp.core.options import ranged
from fedexp.data.examples import Spec
from fedexp.models.base import TOKENS, Model, register
from fedexp.models.sequences import predicts_everywhere, recurrent

if TYPE_CHECKING:
    from torch import nn


@register
@dataclass(frozen=True)
class Gru(Model):
    """The GRU of Cho et al., arXiv 1406.1078, over embedded tokens.

    Where a text has one label, it is told from the mean of the states over all its places.
    """

    kinds = (TOKENS,)
    tasks = ("classification", "next_token", "regression")

    name: str = "gru"
    embedding: int = ranged(64, ge=1)
    """Numbers that stand for a token."""
    hidden: int = ranged(128, ge=1)
    """Units of every layer."""
    layers: int = ranged(1, ge=1)
    """Layers, one on top of the other."""
    dropout: float = ranged(0.0, ge=0, lt=1)
    """Share of the states before the prediction that a training step sets to 0."""

    def build(self, spec: Spec) -> nn.Module:
        """Return the layers."""
        from torch import nn

        cells = nn.GRU(self.embedding, self.hidden, self.layers, batch_first=True)
        everywhere = predicts_everywhere(spec)
        return recurrent(
            cells, spec, self.embedding, self.hidden, everywhere=everywhere, dropout=self.dropout
        )
