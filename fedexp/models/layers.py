"""Parts that several networks have in common; torch is imported when one is built."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from fedexp.data.examples import Spec

if TYPE_CHECKING:
    from torch import nn


def fully_connected(hidden: Sequence[int], spec: Spec) -> nn.Module:
    """Return linear layers of the given widths with ReLU between them, from flat inputs to outputs."""
    from torch import nn

    widths = [math.prod(spec.shape), *hidden]
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], spec.outputs))


def stem(channels: int, outputs: int) -> nn.Conv2d:
    """Return a first convolution for small images, drawn as torchvision draws its own."""
    from torch import nn

    convolution = nn.Conv2d(channels, outputs, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution
