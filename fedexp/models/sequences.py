"""Networks over tokens; torch is imported when one is built."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fedexp.data.examples import Spec

if TYPE_CHECKING:
    from torch import Tensor, nn


def predicts_everywhere(spec: Spec) -> bool:
    """Say whether every place of a text has a prediction: where neither labels nor values are its."""
    return not spec.num_classes and not spec.values


def recurrent(
    cells: nn.Module,
    spec: Spec,
    embedding: int,
    hidden: int,
    *,
    everywhere: bool,
    dropout: float = 0.0,
) -> nn.Module:
    """Return an embedding, recurrent layers and a dense one.

    Args:
        cells: From (n, T, embedding) to (n, T, hidden), and a state that nobody asks for.
        spec: Vocabulary, and numbers in a prediction.
        embedding: Numbers that stand for a token.
        hidden: Units of the last recurrent layer.
        everywhere: Whether every place has a prediction; else it is made from the mean over places.
        dropout: Of the states before the prediction.
    """
    from torch import nn

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(spec.vocabulary, embedding)
            self.cells = cells
            self.dropout = nn.Dropout(dropout)
            self.head = nn.Linear(hidden, spec.outputs)

        def forward(self, tokens: Tensor) -> Tensor:
            states, _ = self.cells(self.embedding(tokens))
            found: Tensor = self.head(self.dropout(states if everywhere else states.mean(1)))
            return found

    return Recurrent()


def convolutions_over_words(
    spec: Spec, embedding: int, filters: int, widths: Sequence[int], dropout: float
) -> nn.Module:
    """Return an embedding, filters of several widths, the maximum of each and a dense layer."""
    import torch
    from torch import nn

    class Convolutions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(spec.vocabulary, embedding)
            self.filters = nn.ModuleList(
                nn.Conv1d(embedding, filters, width, padding=width // 2) for width in widths
            )
            self.dropout = nn.Dropout(dropout)
            self.head = nn.Linear(filters * len(widths), spec.outputs)

        def forward(self, tokens: Tensor) -> Tensor:
            words = self.embedding(tokens).transpose(1, 2)
            maxima = [one(words).relu().amax(2) for one in self.filters]
            found: Tensor = self.head(self.dropout(torch.cat(maxima, 1)))
            return found

    return Convolutions()


def causal_transformer(
    spec: Spec, width: int, heads: int, layers: int, dropout: float, *, everywhere: bool
) -> nn.Module:
    """Return embeddings of tokens and places, blocks of attention to what came before, and a head."""
    from torch import nn
    from torch.nn import functional as F

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(width)
            self.inputs, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)

        def forward(self, x: Tensor) -> Tensor:
            count, length, _ = x.shape
            parts = self.inputs(self.norm(x)).view(count, length, 3, heads, width // heads)
            query, key, value = parts.permute(2, 0, 3, 1, 4)
            chance = dropout if self.training else 0.0
            seen = F.scaled_dot_product_attention(
                query, key, value, dropout_p=chance, is_causal=True
            )
            found: Tensor = self.output(seen.transpose(1, 2).flatten(2))
            return found

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = Attention()
            self.hidden = nn.Sequential(
                nn.LayerNorm(width),
                nn.Linear(width, 4 * width),
                nn.GELU(),
                nn.Linear(4 * width, width),
            )
            self.dropout = nn.Dropout(dropout)

        def forward(self, x: Tensor) -> Tensor:
            x = x + self.dropout(self.attention(x))
            found: Tensor = x + self.dropout(self.hidden(x))
            return found

    class Causal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Embedding(spec.vocabulary, width)
            self.places = nn.Embedding(spec.shape[0], width)
            self.dropout = nn.Dropout(dropout)
            self.blocks = nn.Sequential(*(Block() for _ in range(layers)))
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, spec.outputs)

        def forward(self, tokens: Tensor) -> Tensor:
            places = self.places.weight[: tokens.shape[1]]
            states = self.norm(self.blocks(self.dropout(self.tokens(tokens) + places)))
            found: Tensor = self.head(states if everywhere else states.mean(1))
            return found

    return Causal()
