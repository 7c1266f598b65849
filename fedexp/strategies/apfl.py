"""APFL: every client mixes a model of its own with the global one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fedexp.core.hooks import Gradients, Rule, Turn, numbers_of
from fedexp.core.options import ranged
from fedexp.core.replies import Carries
from fedexp.core.roles import Client, Job
from fedexp.core.weights import Weights
from fedexp.strategies.base import Strategy, register

if TYPE_CHECKING:
    from torch import Tensor

OWN, ALPHA = "own", "alpha"


@register
@dataclass(frozen=True)
class Apfl(Strategy):
    """Deng et al., arXiv 2003.13461, algorithm 1.

    In every step a client moves its copy ``w`` of the global model along the gradient of its loss at
    ``w``, and a model ``v`` of its own along the gradient at the mixture ``alpha v + (1 - alpha) w``, on
    the same batch. It is tested with the mixture of its ``v`` and the global model. With ``alpha`` 1 that
    is isolated training, with 0 FedAvg. ``adaptive`` moves ``alpha`` once a round, by the paper's
    equation 11. ``v`` starts as the first global model that the client is sent; a newcomer trains for a
    round's steps. Steps are the optimizer's, momentum included, where the paper has plain SGD.
    """

    personalised = True
    asks = ("rule",)
    carries = Carries()

    name: str = "apfl"
    alpha: float = ranged(0.5, ge=0, le=1)
    """Share of the client's own model in the mixture; where it is adaptive, at the start."""
    adaptive: bool = False
    """Whether every client moves its alpha along the gradient of its loss, once a round."""

    def client(self) -> Client:
        """Return the client's side."""
        return ApflClient(self.alpha, self.adaptive)


class ApflClient(Client):
    """Train both models at once, send one."""

    def __init__(self, alpha: float, adaptive: bool) -> None:
        self._alpha, self._adaptive = alpha, adaptive

    def run(self, job: Job) -> None:
        """Keep the own model, and alpha where it moves; send the copy of the global one."""
        mixing, trained = self._train(job)
        job.state[OWN] = mixing.own
        if self._adaptive:
            job.state[ALPHA] = mixing.alpha
        job.send(trained)

    def weights_to_test(self, job: Job) -> Weights:
        """Mix the own model with the one that was sent."""
        own, alpha = job.state.get(OWN), job.state.get(ALPHA, self._alpha)
        if not isinstance(own, dict):
            mixing, _ = self._train(job)
            own, alpha = mixing.own, mixing.alpha
        return {**job.model, **mixed(own, job.model, float(str(alpha)))}

    def _train(self, job: Job) -> tuple[_Mixing, Weights]:
        own = job.state.get(OWN) or {name: job.model[name] for name in job.parameters}
        assert isinstance(own, dict)
        alpha = float(str(job.state.get(ALPHA, self._alpha)))
        mixing = _Mixing(own, alpha, job.learning_rate if self._adaptive else 0.0)
        return mixing, job.train(rule=mixing)


def mixed(own: Weights, model: Weights, alpha: float) -> Weights:
    """Return ``alpha * own + (1 - alpha) * model`` for what the client has of its own."""
    return {n: np.asarray(alpha * v + (1 - alpha) * model[n], v.dtype) for n, v in own.items()}


class _Mixing(Rule):
    """Moves ``v`` beside ``w``, which the parameters are.

    Attributes:
        alpha: The share of ``v`` in the mixture.
    """

    def __init__(self, own: Weights, alpha: float, alpha_rate: float) -> None:
        self._start, self.alpha, self._rate = own, alpha, alpha_rate

    def begin(
        self,
        parameters: Mapping[str, Tensor],
        optimizer: Callable[[Sequence[Tensor]], Callable[[Gradients], None]],
    ) -> None:
        """Lay ``v`` beside the parameters."""
        import torch

        self._w = parameters
        self._v = {n: torch.tensor(self._start[n]).to(w.device) for n, w in parameters.items()}
        self._update = optimizer(list(self._v.values()))
        self._first = True

    def gradients(self, turn: Turn) -> Gradients:
        """Take the gradients at ``w``, then those at the mixture, and move ``v`` along these."""
        import torch

        at_w, w = turn.gradient(), [tensor.detach().clone() for tensor in self._w.values()]
        with torch.no_grad():
            for parameter, v in zip(self._w.values(), self._v.values(), strict=True):
                parameter.copy_(self.alpha * v + (1 - self.alpha) * parameter)
        at_mixture = turn.gradient()
        with torch.no_grad():
            if self._first and self._rate:
                self._adapt(at_mixture, w)
            self._first = False
            self._update(tuple(g if g is None else self.alpha * g for g in at_mixture))
            for parameter, before in zip(self._w.values(), w, strict=True):
                parameter.copy_(before)
        return at_w

    @property
    def own(self) -> Weights:
        """``v`` as it is now."""
        return numbers_of(self._v)

    def _adapt(self, gradients: Gradients, w: Sequence[Tensor]) -> None:
        """Move alpha along ``<v - w, gradient at the mixture>``, within [0, 1]."""
        products = (
            float(((v - x) * g).sum())
            for v, x, g in zip(self._v.values(), w, gradients, strict=True)
            if g is not None
        )
        self.alpha = min(1.0, max(0.0, self.alpha - self._rate * sum(products)))
