"""Networks of convolutions on a CPU: between their layers, data stay in oneDNN's blocked layout.

oneDNN computes torch's convolutions. In its layout, the channels of a pixel lie side by side, in blocks.
torch converts the input of every convolution to this layout, and the output back; and torch's own pooling
compares one number at a time. Here data are converted once before the first convolution and once after
the last pooling. The convolutions are computed by the same kernels, so the bits are the same.
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
    """Return what computes a network's outputs: the network itself, or the same in the blocked layout.

    The blocked layout is for ``nn.Sequential`` in float32 on an x86-64 CPU. The first layer must be
    ``Conv2d``, and the layout is kept for as long as ``Conv2d``, ``MaxPool2d`` and ``ReLU`` follow, none
    of them hooked or replaced. Outputs and gradients have the same bits, with two exceptions: 0.0 may
    stand for -0.0, and a gradient with NaN or infinity in it may have NaN in more places. Gradients
    cannot be differentiated again.

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
        # torch has names for some paddings, and another kernel for 1x1.
        large = not isinstance(layer.padding, str) and min(layer.kernel_size) > 1
        bias = layer.bias is None or is_usual(layer.bias)
        return plain and large and bias and _is_in_planes(layer.weight)
    if type(layer) is nn.MaxPool2d:
        apart = layer.stride == layer.kernel_size and (layer.padding, layer.dilation) == (0, 1)
        return apart and not layer.ceil_mode and not layer.return_indices
    return type(layer) is nn.ReLU and not layer.inplace


class _Blocked:
    """Computes the outputs of a network, its first layers in the blocked layout.

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
        # torch has another kernel for a single small image.
        several = inputs.ndim == 4 and len(inputs) > 1 and not torch.is_anomaly_enabled()
        return several and _is_in_planes(inputs) and self._is_tame(inputs)

    def _is_tame(self, inputs: Tensor) -> bool:
        """Say whether no number can become infinite or NaN: oneDNN's pooling ignores NaN."""
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
