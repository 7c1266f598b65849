"""ResNet-18 with GroupNorm, from torchvision."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedexp.core.options import Plan, ranged
from fedexp.data.examples import Spec
from fedexp.models.base import WHOLE, Model, register
from fedexp.models.layers import stem

if TYPE_CHECKING:
    from torch import nn


@register
@dataclass(frozen=True)
class Resnet18(Model):
    """He et al., arXiv 1512.03385, with GroupNorm (``groups`` groups a layer) instead of BatchNorm.

    Averages of BatchNorm's statistics fit no client whose labels are skewed (Hsieh et al., arXiv
    1910.00189); Reddi et al., arXiv 2003.00295, train this network with GroupNorm. The stem is made
    for small images: 3x3 of stride 1 instead of 7x7 of stride 2, and no pooling after it.
    """

    kinds = ("image",)
    tasks = WHOLE
    normalises = True
    tested_at_once = 100

    name: str = "resnet18"
    groups: int = ranged(2, ge=1)
    """Groups of channels in a GroupNorm layer."""

    def errors(self, plan: Plan) -> Iterable[str]:
        """Groups must divide the channels of every layer."""
        if 64 % self.groups:
            yield f"model.groups must divide 64, resnet18's narrowest layer, got {self.groups}"

    def build(self, spec: Spec) -> nn.Module:
        """Return torchvision's network with another norm and stem."""
        from torch import nn
        from torchvision.models import resnet18

        model: nn.Module = resnet18(
            num_classes=spec.outputs,
            norm_layer=lambda channels: nn.GroupNorm(self.groups, channels),
        )
        model.conv1 = stem(spec.shape[0], 64)
        model.maxpool = nn.Identity()
        return model
