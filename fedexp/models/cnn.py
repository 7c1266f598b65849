"""McMahan et al.'s CNN."""

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
class Cnn(Model):
    """The CNN of McMahan et al., arXiv 1602.05629, section 3.

    Two convolutions, each followed by 2x2 pooling. The paper does not mention padding; only convolutions
    that keep the size give its 1,663,370 parameters on MNIST. Without padding (0) it is the CNN that most
    work on personalised federated learning uses, with 582,026 parameters (PFLlib, arXiv 2312.04992).
    """

    kinds = ("image",)
    tasks = WHOLE
    min_side = 4  # 4 -> 2 -> 1 with all padding
    tested_at_once = 40

    name: str = "cnn"
    padding: int = ranged(2, ge=0, le=2)
    """Zeros on every side of what a convolution sees; 2 keeps the size."""

    def errors(self, plan: Plan) -> Iterable[str]:
        """Less padding needs larger images."""
        least = 16 - 6 * self.padding  # 16 -> 12 -> 6 -> 2 -> 1; 10 -> 8 -> 4 -> 2 -> 1
        shape = plan.dataset.spec.shape
        if len(shape) == 3 and min(shape[1:]) < least:
            yield (
                f"model.padding={self.padding} needs images of at least {least}x{least} pixels, dataset="
                f"{plan.dataset.name} has {shape[1]}x{shape[2]}: 2 takes images of {self.min_side}x"
                f"{self.min_side} and more"
            )

    def build(self, spec: Spec) -> nn.Module:
        """Return the layers."""
        from torch import nn

        # ReLU before the pooling has the same values and gradients, and four times the work.
        channels, height, width = spec.shape
        rows, columns = (self._after(self._after(side)) for side in (height, width))
        return nn.Sequential(
            nn.Conv2d(channels, 32, 5, padding=self.padding),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(32, 64, 5, padding=self.padding),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * rows * columns, 512),
            nn.ReLU(),
            nn.Linear(512, spec.outputs),
        )

    def _after(self, side: int) -> int:
        """Return what a convolution and its pooling leave of a height or width."""
        return (side + 2 * self.padding - 4) // 2
