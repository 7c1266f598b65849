"""McMahan et al.'s CNN."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedexp.data.examples import Spec
from fedexp.models.base import WHOLE, Model, register

if TYPE_CHECKING:
    from torch import nn


@register
@dataclass(frozen=True)
class Cnn(Model):
    """The CNN of McMahan et al., arXiv 1602.05629, section 3.

    Two convolutions that keep the size, each followed by 2x2 pooling. The paper does not mention padding;
    only convolutions that keep the size give its 1,663,370 parameters on MNIST.
    """

    kinds = ("image",)
    tasks = WHOLE
    min_side = 4  # 4 -> 2 -> 1

    name: str = "cnn"

    def build(self, spec: Spec) -> nn.Module:
        """Return the layers."""
        from torch import nn

        channels, height, width = spec.shape
        return nn.Sequential(
            nn.Conv2d(channels, 32, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64 * (height // 4) * (width // 4), 512),
            nn.ReLU(),
            nn.Linear(512, spec.outputs),
        )
