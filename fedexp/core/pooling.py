"""Pooling that a CPU does faster, to the same bits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_SIZE = (2, 2)
_AS_IT_IS = (_SIZE, _SIZE, (0, 0), (1, 1), False)  # size, stride, padding, dilation, ceil mode

FEWEST = 2**15
"""Numbers from which turning images over pays: a batch of 10 for LeNet-5's first pooling has 34,560."""


class MaxPool2d(nn.Module):
    """2x2 max pooling with stride 2: what ``nn.MaxPool2d(2)`` does, values and gradients to the bit.

    torch's kernel for images whose channels lie one after another compares one number at a time. The one
    for images whose channels lie side by side compares many, so a CPU saves time where it turns them over
    first. Backward, torch's usual kernel is the faster one.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Return the largest of every 2x2 pixels: shape (n, channels, height, width), both halved."""
        if images.device.type != "cpu" or images.numel() < FEWEST:
            return nn.functional.max_pool2d(images, 2)
        pooled: Tensor = _Turned.apply(images)[0]
        return pooled

    def extra_repr(self) -> str:
        """Say what it does, where a model is printed."""
        return "2"


class _Turned(torch.autograd.Function):
    """Forward with the channels side by side, backward with them as they were."""

    generate_vmap_rule = True

    @staticmethod
    def forward(images: Tensor) -> tuple[Tensor, Tensor]:
        turned = images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
        pooled, places = torch.ops.aten.max_pool2d_with_indices(turned, *_AS_IT_IS)
        return pooled.contiguous(), places.contiguous()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(inputs[0], output[1])
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        images, places = ctx.saved_tensors
        backward = torch.ops.aten.max_pool2d_with_indices_backward
        result: Tensor = backward(gradients[0], images, *_AS_IT_IS, places)
        return result
