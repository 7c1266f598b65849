"""McMahan et al.'s 2NN."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedexp.data.examples import Spec
from fedexp.models.base import NUMBERS, WHOLE, Model, register
from fedexp.models.layers import fully_connected

if TYPE_CHECKING:
    from torch import nn


@register
@dataclass(frozen=True)
class TwoNn(Model):
    """The 2NN of McMahan et al., arXiv 1602.05629, section 3: two hidden layers of 200 units."""

    kinds = NUMBERS
    tasks = WHOLE

    name: str = "two_nn"

    def build(self, spec: Spec) -> nn.Module:
        """Return the layers."""
        return fully_connected([200, 200], spec)
