"""McMahan et al.'s character LSTM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedexp.core.options import ranged
from fedexp.data.examples import Spec
from fedexp.models.base import TOKENS, Model, register
from fedexp.models.sequences import recurrent

if TYPE_CHECKING:
    from torch import nn


@register
@dataclass(frozen=True)
class CharLstm(Model):
    """The stacked character LSTM of McMahan et al., arXiv 1602.05629, section 3.

    A character is looked up in an embedding of 8 numbers, two layers of 256 units read them, and a dense
    layer predicts the next one at every place. torch's LSTM has two biases for every gate where others
    have one.
    """

    kinds = (TOKENS,)
    tasks = ("next_token",)

    name: str = "char_lstm"
    embedding: int = ranged(8, ge=1)
    """Numbers that stand for a character."""
    hidden: int = ranged(256, ge=1)
    """Units of every layer."""
    layers: int = ranged(2, ge=1)
    """LSTM layers, one on top of the other."""

    def build(self, spec: Spec) -> nn.Module:
        """Return the layers."""
        from torch import nn

        cells = nn.LSTM(self.embedding, self.hidden, self.layers, batch_first=True)
        return recurrent(cells, spec, self.embedding, self.hidden, everywhere=True)
