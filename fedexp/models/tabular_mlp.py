"""Fully connected layers with dropout, for tables."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from fedexp.core.options import Plan, ranged
from fedexp.data.examples import Spec
from fedexp.models.base import WHOLE, Model, register

if TYPE_CHECKING:
    from torch import nn


@register
@dataclass(frozen=True)
class TabularMlp(Model):
    """The MLP of Gorishniy et al., arXiv 2106.11959: blocks of a linear layer, ReLU and dropout."""

    kinds = ("vector",)
    tasks = WHOLE

    name: str = "tabular_mlp"
    hidden: list[int] = field(default_factory=lambda: [128, 64])
    """Widths of the hidden layers, in units."""
    dropout: float = ranged(0.1, ge=0, lt=1)
    """Share of every hidden layer's outputs that a training step sets to 0."""

    def errors(self, plan: Plan) -> Iterable[str]:
        """Widths are numbers of units."""
        if any(width < 1 for width in self.hidden):
            yield f"model.hidden must hold widths >= 1, got {list(self.hidden)}"

    def build(self, spec: Spec) -> nn.Module:
        """Return the layers."""
        from torch import nn

        widths = [spec.shape[0], *self.hidden]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(self.dropout)]
        return nn.Sequential(*layers, nn.Linear(widths[-1], spec.outputs))
