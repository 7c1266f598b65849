"""Linear regression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedexp.data.examples import Spec
from fedexp.models.base import NUMBERS, Model, register
from fedexp.models.layers import fully_connected

if TYPE_CHECKING:
    from torch import nn


@register
@dataclass(frozen=True)
class Linear(Model):
    """Linear regression: one linear layer and the squared error, a convex problem."""

    kinds = NUMBERS
    tasks = ("regression",)

    name: str = "linear"

    def build(self, spec: Spec) -> nn.Module:
        """Return the layer."""
        return fully_connected([], spec)
