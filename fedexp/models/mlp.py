"""Fully connected networks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fedexp.core.options import Plan
from fedexp.data.examples import Spec
from fedexp.models.base import NUMBERS, WHOLE, Model, register
from fedexp.models.layers import fully_connected

if TYPE_CHECKING:
    from torch import nn


@register
@dataclass(frozen=True)
class Mlp(Model):
    """Fully connected layers with ReLU between them."""

    kinds = NUMBERS
    tasks = WHOLE

    name: str = "mlp"
    hidden: list[int] = field(default_factory=lambda: [128])
    """Widths of the hidden layers, in units."""

    def errors(self, plan: Plan) -> Iterable[str]:
        """Widths are numbers of units."""
        if any(width < 1 for width in self.hidden):
            yield f"model.hidden must hold widths >= 1, got {list(self.hidden)}"

    def build(self, spec: Spec) -> nn.Module:
        """Return the layers."""
        return fully_connected(self.hidden, spec)
