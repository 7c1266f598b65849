"""A small causal transformer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedexp.core.options import Plan, ranged
from fedexp.data.examples import Spec
from fedexp.models.base import TOKENS, Model, register
from fedexp.models.sequences import causal_transformer, predicts_everywhere

if TYPE_CHECKING:
    from torch import nn


@register
@dataclass(frozen=True)
class Transformer(Model):
    """A causal transformer (Vaswani et al., arXiv 1706.03762) in the form of GPT-2.

    Learned positions, layer normalisation before every block and after the last, GELU in a hidden layer
    four times as wide, dropout behind every block and on the attention. Where a text has one label, it is
    told from the mean over all its places. Departures from GPT-2: the head has weights of its own, and
    all weights are drawn as torch draws them.
    """

    kinds = (TOKENS,)
    tasks = ("classification", "next_token", "regression")
    normalises = True

    name: str = "transformer"
    width: int = ranged(64, ge=1)
    """Numbers that stand for a token and its place."""
    heads: int = ranged(4, ge=1)
    """Heads of the attention; they must divide the width."""
    layers: int = ranged(2, ge=1)
    """Blocks of attention and hidden layer, one on top of the other."""
    dropout: float = ranged(0.1, ge=0, lt=1)
    """Share of what every block computes that a training step sets to 0."""

    def errors(self, plan: Plan) -> Iterable[str]:
        """Heads share the width."""
        if self.width % self.heads:
            yield f"model.heads must divide model.width={self.width}, got {self.heads}"

    def build(self, spec: Spec) -> nn.Module:
        """Return the layers."""
        everywhere = predicts_everywhere(spec)
        return causal_transformer(
            spec, self.width, self.heads, self.layers, self.dropout, everywhere=everywhere
        )
