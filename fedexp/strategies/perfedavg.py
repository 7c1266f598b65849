"""Per-FedAvg: a global model that one step adapts to any client."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedexp.core.hooks import Gradients, Rule, Turn
from fedexp.core.options import ranged
from fedexp.core.replies import Carries
from fedexp.core.roles import Client, Job
from fedexp.core.weights import Weights
from fedexp.strategies.base import Strategy, register

if TYPE_CHECKING:
    from torch import Tensor


@register
@dataclass(frozen=True)
class PerFedAvg(Strategy):
    """Fallah et al., NeurIPS 2020, arXiv 2002.07948, with the first-order approximation (FO).

    In each of a round's steps a client takes a step of size ``alpha`` on one batch, and moves from where
    it was along the gradient that another batch has there: the paper's algorithm 1 without second
    derivatives. It is tested after ``adaptation_steps`` steps of size ``alpha`` from the global model,
    and so is a newcomer. Outer steps are the optimizer's, momentum included, where the paper has plain
    SGD; a step costs two gradients.
    """

    personalised = True
    asks = ("rule",)

    name: str = "perfedavg"
    alpha: float = ranged(0.01, ge=0)
    """Size of the step that adapts the model to a client."""
    adaptation_steps: int = ranged(1, ge=1)
    """SGD steps that a client takes from the global model before it is tested."""

    @property
    def carries(self) -> Carries:
        """Nothing further, as under FedAvg."""
        return Carries()

    def client(self) -> Client:
        """Return the client's side."""
        return PerFedAvgClient(self.alpha, self.adaptation_steps)


class PerFedAvgClient(Client):
    """Train for what comes after a step."""

    def __init__(self, alpha: float, steps: int) -> None:
        self._alpha, self._steps = alpha, steps

    def run(self, job: Job) -> None:
        """Train, send."""
        job.send(job.train(rule=_LookAhead(self._alpha)))

    def weights_to_test(self, job: Job) -> Weights:
        """Adapt the global model."""
        if not self._alpha:
            return job.model
        return job.train(steps=self._steps, rate=self._alpha)


class _LookAhead(Rule):
    """Takes the gradient where a step leads to."""

    def __init__(self, alpha: float) -> None:
        self._alpha = alpha

    def begin(
        self,
        parameters: Mapping[str, Tensor],
        optimizer: Callable[[Sequence[Tensor]], Callable[[Gradients], None]],
    ) -> None:
        """Remember what moves."""
        self._parameters = list(parameters.values())

    def gradients(self, turn: Turn) -> Gradients:
        """Step, look at another batch, step back."""
        import torch

        first, before = turn.gradient(), [p.detach().clone() for p in self._parameters]
        with torch.no_grad():
            for parameter, slope in zip(self._parameters, first, strict=True):
                if slope is not None:
                    parameter.sub_(self._alpha * slope)
        turn.another()
        there = turn.gradient()
        with torch.no_grad():
            for parameter, value in zip(self._parameters, before, strict=True):
                parameter.copy_(value)
        return there
