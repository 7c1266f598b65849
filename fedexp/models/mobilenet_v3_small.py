"""MobileNetV3-Small with BatchNorm, from torchvision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedexp.data.examples import Spec
from fedexp.models.base import WHOLE, Model, register
from fedexp.models.layers import stem

if TYPE_CHECKING:
    from torch import nn


@register
@dataclass(frozen=True)
class MobilenetV3Small(Model):
    """Howard et al., arXiv 1905.02244.

    Departures: no dropout; and a stem of stride 1 for small images. With stride 2, images of 28 or 32
    pixels shrink to a single one, and BatchNorm refuses a batch of one image.
    """

    kinds = ("image",)
    tasks = WHOLE
    normalises = True
    has_buffers = True
    # Four halvings, rounded up, must leave 2 pixels: BatchNorm needs more than one value per channel,
    # and a client's last batch may hold a single image.
    min_side = 17
    tested_at_once = 100

    name: str = "mobilenet_v3_small"

    def build(self, spec: Spec) -> nn.Module:
        """Return torchvision's network with another stem."""
        from torchvision.models import mobilenet_v3_small

        model: nn.Module = mobilenet_v3_small(num_classes=spec.outputs, dropout=0.0)
        model.get_submodule("features.0")[0] = stem(spec.shape[0], 16)  # type: ignore[operator]
        return model
