"""Convolutions over series."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedexp.core.options import Plan, ranged
from fedexp.data.examples import Spec
from fedexp.models.base import WHOLE, Model, register

if TYPE_CHECKING:
    from torch import nn


@register
@dataclass(frozen=True)
class Cnn1d(Model):
    """The FCN of Wang et al., arXiv 1611.06455: three convolutions, and the mean over time of the last.

    They are 8, 5 and 3 steps wide and keep the length. Departures: GroupNorm of 4 groups in place of
    BatchNorm, whose statistics are not to be averaged over clients whose labels are skewed (Hsieh et al.,
    arXiv 1910.00189); and half of the paper's 128 channels by default.
    """

    kinds = ("series",)
    tasks = WHOLE
    normalises = True

    name: str = "cnn1d"
    channels: int = ranged(64, ge=4)
    """Channels of the first and the last convolution, a multiple of 4; the second has twice as many."""

    def errors(self, plan: Plan) -> Iterable[str]:
        """Groups must divide the channels."""
        if self.channels % 4:
            yield f"model.channels must be a multiple of 4, got {self.channels}"

    def build(self, spec: Spec) -> nn.Module:
        """Return the layers."""
        from torch import nn

        layers: list[nn.Module] = []
        inputs = spec.shape[0]
        for outputs, width in ((self.channels, 8), (2 * self.channels, 5), (self.channels, 3)):
            # torch's padding="same" warns of an even width that it makes a copy, as this does.
            layers += [nn.ZeroPad1d(((width - 1) // 2, width // 2))]
            layers += [nn.Conv1d(inputs, outputs, width), nn.GroupNorm(4, outputs), nn.ReLU()]
            inputs = outputs
        return nn.Sequential(
            *layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(inputs, spec.outputs)
        )
