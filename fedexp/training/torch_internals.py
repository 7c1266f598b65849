"""The corners of torch that are not its public interface; tests say when they move.

``torch`` is capped at the minor version that they were tried with (pyproject.toml).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Gradients = tuple[Tensor | None, ...]
"""One tensor per parameter, as autograd returns them; None where the loss does not depend on it."""


def gradient_function(
    parameters: Sequence[Tensor], device: torch.device
) -> Callable[[Tensor], Gradients]:
    """Return the map from a loss, a float32 tensor without dimensions, to its gradients.

    It calls the engine behind ``torch.autograd.grad(allow_unused=True)`` itself: the checks around it,
    in Python, take an eighth of a step on a small network.
    """
    run_backward = torch.autograd.Variable._execution_engine.run_backward
    seed, inputs = (torch.ones((), device=device),), tuple(parameters)
    strides = [parameter.stride() for parameter in inputs]

    def gradients(loss: Tensor) -> Gradients:
        # keep the graph: no; differentiate twice: no; parameters that the loss does not need: allowed
        found = run_backward((loss,), seed, False, False, inputs, True, accumulate_grad=False)
        seen: set[int] = set()
        own: list[Tensor | None] = []
        for gradient, stride, parameter in zip(found, strides, inputs, strict=True):
            # The fused kernels read memory, not strides; and parameters may get views of one tensor.
            if gradient is not None:
                if gradient.stride() != stride or gradient.data_ptr() in seen:
                    gradient = torch.empty_like(parameter).copy_(gradient)
                seen.add(gradient.data_ptr())
            own.append(gradient)
        return tuple(own)

    return gradients


def fused_sgd(
    parameters: list[Tensor],
    gradients: tuple[Tensor, ...] | list[Tensor],
    momenta: list[Tensor],
    *,
    weight_decay: float,
    momentum: float,
    learning_rate: float,
    first: bool,
) -> None:
    """Take a step of SGD: the kernel behind ``torch.optim.SGD(fused=True)``.

    Without the hooks, profiling and sorting by device around it, which take a third of a step on a small
    network.

    Args:
        parameters: Changed in place.
        gradients: One per parameter.
        momenta: One per parameter, changed in place; none without momentum.
        weight_decay: Strength of the pull to zero.
        momentum: In [0, 1).
        learning_rate: Of this step.
        first: Whether ``momenta`` are still to be filled.
    """
    torch._fused_sgd_(
        parameters,
        gradients,
        momenta,
        weight_decay=weight_decay,
        momentum=momentum,
        lr=learning_rate,
        dampening=0.0,
        nesterov=False,
        maximize=False,
        is_first_step=first and bool(momenta),
    )


_nll, _nll_slope = torch.ops.aten.nll_loss_forward.default, torch.ops.aten.nll_loss_backward.default
_relu_slope = torch.ops.aten.threshold_backward.default

_AS_TOLD = (1, -100)  # F.cross_entropy is told nothing: it takes the mean, and skips labels of -100
_ONE = torch.ones(())


def cross_entropy(outputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return a batch's mean cross-entropy and its slope, as autograd has them of ``F.cross_entropy``.

    For tensors on the CPU, where autograd records nothing.

    Args:
        outputs: Shape (n, classes), float32.
        labels: Shape (n,), int64.

    Returns:
        The loss, a tensor without dimensions; and its gradient at the outputs, shape (n, classes).
    """
    logs = outputs.log_softmax(1)
    loss, total = _nll(logs, labels, None, *_AS_TOLD)
    slope = _nll_slope(_ONE, logs, labels, None, *_AS_TOLD, total)
    return loss, torch._log_softmax_backward_data(slope, logs, 1, outputs.dtype)


def relu_slope(slope: Tensor, outputs: Tensor) -> Tensor:
    """Return the gradient at what ReLU took, from that at its outputs."""
    found: Tensor = _relu_slope(slope, outputs, 0)
    return found


def does_what_its_class_does(part: nn.Module) -> bool:
    """Say whether a module runs its class's ``forward`` and nobody else's code, forward or backward."""
    if (
        part._forward_hooks
        or part._forward_pre_hooks
        or part._backward_hooks
        or part._backward_pre_hooks
        or part._compiled_call_impl is not None
        or "forward" in part.__dict__
        or nn.modules.module._has_any_global_hook()
    ):
        return False
    held = part._parameters.values()
    return not any(parameter is not None and parameter._backward_hooks for parameter in held)
