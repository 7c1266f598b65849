"""Networks of convolutions on a CPU: what is between their layers stays as oneDNN computes with it.

oneDNN, which computes torch's convolutions, has the channels of a pixel lie side by side in blocks. torch
turns what goes into a convolution over, and back what comes out; and its own pooling compares one number
at a time. To leave it in blocks from the first convolution to the last pooling takes the same kernels for
the convolutions, and gives the same bits.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from itertools import takewhile

import torch
from torch import Tensor, nn

from fedexp.training.torch_internals import does_what_its_class_does

Forward = Callable[[Tensor], Tensor]
"""From a batch of prepared inputs to a network's outputs."""

TAME = 1e37
"""What no number of a network may reach: float32 ends at 3.4e38."""


def forward_of(module: nn.Module) -> Forward:
    """Return what computes a network's outputs: the network, or the same with convolutions in blocks.

    Those are of ``nn.Sequential`` that begins with ``Conv2d``, ``MaxPool2d`` and ``ReLU``, in float32, as
    long as nobody hooks or replaces anything there. The numbers, and their gradients, are the same to the
    bit (0.0 may stand for -0.0). Of a gradient that holds NaN or infinity, more may be NaN than in torch;
    and none can be differentiated again.

    Args:
        module: The network.
    """
    if (
        type(module) is not nn.Sequential
        or not _has_blocks()
        or not does_what_its_class_does(module)
    ):
        return module
    layers = list(takewhile(_may_be_blocked, module))
    if len(layers) < 2 or type(layers[0]) is not nn.Conv2d:
        return module
    return _Blocked(module, layers)


def is_usual(part: Tensor) -> bool:
    """Say whether a tensor lies on the CPU in one piece, in float32."""
    return part.device.type == "cpu" and part.dtype == torch.float32 and part.is_contiguous()


def _is_in_planes(part: Tensor) -> bool:
    """Say whether each channel lies in one piece, in a tensor of shape (n, channels, height, width).

    A single channel, or images of one pixel, may have the strides of channels side by side; torch
    computes them as such.
    """
    _, channels, height, width = part.shape
    planes = (channels * height * width, height * width, width, 1)
    return is_usual(part) and part.stride() == planes


def _has_blocks() -> bool:
    there = torch.backends.mkldnn.is_available() and platform.machine() in ("x86_64", "AMD64")
    return there and bool(torch.backends.mkldnn.enabled)


def _may_be_blocked(layer: nn.Module) -> bool:
    return _is_known(layer) and does_what_its_class_does(layer)


def _is_known(layer: nn.Module) -> bool:
    if type(layer) is nn.Conv2d:
        plain = (layer.padding_mode, layer.groups, layer.dilation) == ("zeros", 1, (1, 1))
        # torch has names for some paddings, and computes 1x1 in another way.
        large = not isinstance(layer.padding, str) and min(layer.kernel_size) > 1
        bias = layer.bias is None or is_usual(layer.bias)
        return plain and large and bias and _is_in_planes(layer.weight)
    if type(layer) is nn.MaxPool2d:
        apart = layer.stride == layer.kernel_size and (layer.padding, layer.dilation) == (0, 1)
        return apart and not layer.ceil_mode and not layer.return_indices
    return type(layer) is nn.ReLU and not layer.inplace


class _Blocked:
    """The outputs of a network whose first layers are computed in blocks.

    Args:
        module: The network.
        layers: The first of its layers.
    """

    def __init__(self, module: nn.Sequential, layers: list[nn.Module]) -> None:
        self._module, self._layers = module, layers
        self._rest = list(module)[len(layers) :]
        self._convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]

    def __call__(self, inputs: Tensor) -> Tensor:
        if not self._fits(inputs):
            outputs: Tensor = self._module(inputs)
            return outputs
        x = inputs.to_mkldnn()
        for layer in self._layers:
            x = layer(x)
        x = x.to_dense()
        for layer in self._rest:
            x = layer(x)
        return x

    def _fits(self, inputs: Tensor) -> bool:
        # torch computes a single small image in another way.
        several = inputs.ndim == 4 and len(inputs) > 1 and not torch.is_anomaly_enabled()
        return several and _is_in_planes(inputs) and self._is_tame(inputs)

    def _is_tame(self, inputs: Tensor) -> bool:
        """Say whether no number can be infinite or NaN, which oneDNN's pooling passes over."""
        with torch.no_grad():
            largest = _largest(inputs)
            for layer in self._convolutions:
                weight, bias = layer.weight, layer.bias
                largest *= _largest(weight) * weight[0].numel()
                largest += 0.0 if bias is None else _largest(bias)
                if not largest < TAME:  # nor is NaN
                    return False
        return True


def _largest(part: Tensor) -> float:
    return float(part.abs().max())
