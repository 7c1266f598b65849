"""Optimizers of local training: gradients in, parameters changed in place."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fedexp.config.training import TrainingConfig
from fedexp.training.torch_internals import Gradients, fused_sgd

ADAM_BETA_2 = 0.999
"""Decay of Adam's second moment (Kingma and Ba, arXiv 1412.6980)."""


def build_updater(
    parameters: list[Tensor], config: TrainingConfig, learning_rate: float
) -> Callable[[Gradients], None]:
    """Return the optimizer's step: gradients in, parameters changed in place.

    It is to be called under ``no_grad``. A parameter without a gradient stays as it is, as with torch's
    own optimizers.
    """
    if config.optimizer != "sgd":
        return _adam_updater(parameters, config, learning_rate)
    return _SgdUpdater(parameters, config, learning_rate)


class _SgdUpdater:
    """SGD with momentum and weight decay; torch's defaults otherwise."""

    def __init__(
        self, parameters: list[Tensor], config: TrainingConfig, learning_rate: float
    ) -> None:
        self._parameters, self._config, self._rate = parameters, config, learning_rate
        self._momenta = [torch.empty_like(p) for p in parameters] if config.momentum else []
        # A parameter's momentum begins with its first gradient; mostly all begin together.
        self._waiting = set(range(len(parameters)))

    def __call__(self, gradients: Gradients) -> None:
        given = [k for k, gradient in enumerate(gradients) if gradient is not None]
        fresh = [k for k in given if k in self._waiting] if self._waiting else []
        self._waiting.difference_update(fresh)
        if len(fresh) == len(gradients) or (not fresh and len(given) == len(gradients)):
            self._step(self._parameters, gradients, self._momenta, first=bool(fresh))
            return
        for chosen in (fresh, [k for k in given if k not in fresh]):
            if chosen:
                self._step(
                    [self._parameters[k] for k in chosen],
                    [gradients[k] for k in chosen],
                    [self._momenta[k] for k in chosen] if self._momenta else [],
                    first=chosen is fresh,
                )

    def _step(
        self,
        parameters: list[Tensor],
        gradients: tuple[Tensor | None, ...] | list[Tensor | None],
        momenta: list[Tensor],
        *,
        first: bool,
    ) -> None:
        fused_sgd(
            parameters,
            gradients,  # type: ignore[arg-type]  # those that are None have been left out
            momenta,
            weight_decay=self._config.weight_decay,
            momentum=self._config.momentum,
            learning_rate=self._rate,
            first=first,
        )


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
