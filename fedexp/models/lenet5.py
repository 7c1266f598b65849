"""NIID-Bench's LeNet-5."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedexp.data.examples import Spec
from fedexp.models.base import WHOLE, Model, register

if TYPE_CHECKING:
    from torch import nn


@register
@dataclass(frozen=True)
class Lenet5(Model):
    """The LeNet-5 of Li et al. (NIID-Bench), arXiv 2102.02079.

    Two convolutions without padding (each takes 4 pixels off height and width), each followed by 2x2
    maximum pooling; ReLU throughout. LeCun et al. had neither maximum pooling nor ReLU.
    """

    kinds = ("image",)
    tasks = WHOLE
    min_side = 16  # 16 -> 12 -> 6 -> 2 -> 1

    name: str = "lenet5"

    def build(self, spec: Spec) -> nn.Module:
        """Return the layers."""
        from torch import nn

        channels, height, width = spec.shape
        rows, columns = (((side - 4) // 2 - 4) // 2 for side in (height, width))
        return nn.Sequential(
            nn.Conv2d(channels, 6, 5),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(6, 16, 5),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(16 * rows * columns, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, spec.outputs),
        )
