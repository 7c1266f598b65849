"""Gradients of local training, and its optimizers: gradients in, parameters changed in place."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fedexp.config.clients import TrainingConfig

Gradients = tuple[Tensor, ...]
"""One tensor per parameter, as autograd returns them."""

ADAM_BETA_2 = 0.999
"""Decay of Adam's second moment (Kingma and Ba, arXiv 1412.6980)."""


def gradient_function(
    parameters: Sequence[Tensor], device: torch.device
) -> Callable[[Tensor], Gradients]:
    """Return the map from a loss, a float32 tensor without dimensions, to its gradients.

    It calls the engine behind ``torch.autograd.grad`` itself: the checks around it, in Python, take an
    eighth of a step on a small network.

    Raises:
        RuntimeError: From the map, if the loss does not depend on every parameter.
    """
    run_backward = torch.autograd.Variable._execution_engine.run_backward
    seed, inputs = (torch.ones((), device=device),), tuple(parameters)

    def gradients(loss: Tensor) -> Gradients:
        # keep the graph: no; differentiate twice: no; parameters that the loss does not need: none
        return run_backward((loss,), seed, False, False, inputs, False, accumulate_grad=False)

    return gradients


def build_updater(
    parameters: list[Tensor], config: TrainingConfig, learning_rate: float
) -> Callable[[Gradients], None]:
    """Return the optimizer's step: gradients in, parameters changed in place.

    SGD is the kernel behind ``torch.optim.SGD(fused=True)``, called without the hooks, profiling and
    sorting by device around it: they take a third of a step on a small network.
    """
    if config.optimizer != "sgd":
        return _adam_updater(parameters, config, learning_rate)
    momenta = [torch.empty_like(p) for p in parameters] if config.momentum else []
    first = True

    @torch.no_grad()
    def step(gradients: Gradients) -> None:
        nonlocal first
        torch._fused_sgd_(
            parameters,
            gradients,
            momenta,
            weight_decay=config.weight_decay,
            momentum=config.momentum,
            lr=learning_rate,
            dampening=0.0,
            nesterov=False,
            maximize=False,
            is_first_step=first and bool(momenta),
        )
        first = False

    return step


def _adam_updater(
    parameters: list[Tensor], config: TrainingConfig, learning_rate: float
) -> Callable[[Gradients], None]:
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    optimizer = kind(
        parameters,
        lr=learning_rate,
        betas=(config.momentum, ADAM_BETA_2),
        weight_decay=config.weight_decay,
        fused=True,
    )

    def step(gradients: Gradients) -> None:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
        optimizer.zero_grad()  # the model outlives this client

    return step
