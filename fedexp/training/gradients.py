"""How a step's gradients come about: by autograd, or written out for a chain of fully connected layers.

autograd takes a third of a small network's step to find out what it has to compute. Of such a chain that
is known, and is done by the same kernels in the same order: to the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedexp.config.training import TrainingConfig
from fedexp.training.blocked import forward_of, is_usual
from fedexp.training.torch_internals import (
    Gradients,
    cross_entropy,
    does_what_its_class_does,
    gradient_function,
    relu_slope,
)

Compute = Callable[[Tensor, Tensor], Tensor]
"""From a batch's inputs and targets to its loss."""

Differentiate = Callable[[Tensor, Tensor], tuple[Tensor, Gradients]]
"""From a batch's inputs and targets to its loss, detached, and the gradients of what moves.

To be called under ``no_grad``: all steps are, because to set it in each takes as long as a small kernel.
"""


def precision_of(config: TrainingConfig, device: torch.device) -> AbstractContextManager[object]:
    """Return the context of a forward pass: bfloat16 on a GPU where ``amp`` is set."""
    amp = config.amp and device.type == "cuda"  # a CPU would compute in bfloat16, too, but slower
    return torch.autocast(device.type, torch.bfloat16) if amp else nullcontext()


def differentiation(
    module: nn.Module,
    moving: Sequence[Tensor],
    loss: Compute,
    precision: AbstractContextManager[object],
    device: torch.device,
) -> Differentiate:
    """Return what differentiates a task's loss.

    Args:
        module: The network.
        moving: The parameters that gradients are wanted of.
        loss: From the network's outputs and targets to the loss.
        precision: The context of a forward pass.
        device: Where the network lies.
    """
    layers = chain_of(module, moving) if loss is F.cross_entropy else None

    @cache  # most chains never need it
    def usual() -> Differentiate:
        forward = forward_of(module)
        return by_autograd(lambda x, y: loss(forward(x), y), moving, precision, device)

    if layers is None:
        return usual()
    chain = _Chain(layers)  # a target may be probabilities
    return lambda x, y: chain(x, y) if y.ndim == 1 else usual()(x, y)


def by_autograd(
    compute: Compute,
    moving: Sequence[Tensor],
    precision: AbstractContextManager[object],
    device: torch.device,
) -> Differentiate:
    """Return what differentiates any loss; see :func:`differentiation`."""
    gradients_of = gradient_function(moving, device)

    def differentiate(x: Tensor, y: Tensor) -> tuple[Tensor, Gradients]:
        with precision, torch.enable_grad():
            loss = compute(x, y)
        return loss.detach(), gradients_of(loss)

    return differentiate


def chain_of(module: nn.Module, moving: Sequence[Tensor]) -> list[nn.Module] | None:
    """Return the layers of a network whose gradients are written out; None for any other.

    It is ``nn.Sequential`` of ``Flatten``, then ``Linear`` with bias and ``ReLU``, in float32 on a CPU,
    where all parameters move, each lies in one piece, and nobody hooked or replaced anything.

    Args:
        module: The network.
        moving: The parameters that gradients are wanted of.
    """
    if type(module) is not nn.Sequential or not len(module):
        return None
    first, *layers = module
    if type(first) is not nn.Flatten or (first.start_dim, first.end_dim) != (1, -1):
        return None
    if any(type(layer) not in (nn.Linear, nn.ReLU) for layer in layers):
        return None
    if not all(does_what_its_class_does(part) for part in (module, first, *layers)):
        return None
    pairs = [_pair(layer) for layer in layers if type(layer) is nn.Linear]
    if [id(part) for pair in pairs for part in pair] != [id(part) for part in moving] or not pairs:
        return None  # also where there is no bias
    if any(bias.shape != weight.shape[:1] for weight, bias in pairs):
        return None
    if any(weight.shape[1] == 1 for weight, _ in pairs[1:]):  # autograd has its own way there
        return None
    if not all(map(is_usual, moving)):
        return None
    return layers


def _pair(layer: nn.Linear) -> tuple[Tensor, Tensor]:
    return layer.weight, layer.bias


class _Chain:
    """Forward and backward of the cross-entropy of a chain.

    Args:
        layers: From :func:`chain_of`.
    """

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        # A linear layer's weight and bias; None is ReLU.
        self._layers = [_pair(part) if isinstance(part, nn.Linear) else None for part in layers]
        self._first = next(k for k, layer in enumerate(self._layers) if layer is not None)

    def __call__(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Gradients]:
        seen = [inputs.flatten(1)]
        for layer in self._layers:
            before = seen[-1]
            seen.append(before.relu() if layer is None else F.linear(before, *layer))
        loss, slope = cross_entropy(seen[-1], labels)
        found = list[Tensor]()  # from the last to the first
        for place in range(len(self._layers) - 1, self._first - 1, -1):
            layer = self._layers[place]
            if layer is None:
                slope = relu_slope(slope, seen[place + 1])
                continue
            found += (slope.sum(0), slope.t().mm(seen[place]))
            if place > self._first:
                slope = slope.mm(layer[0])
        return loss, tuple(reversed(found))
