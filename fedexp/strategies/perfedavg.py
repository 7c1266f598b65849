"""Per-FedAvg: a global model that one step adapts to any client."""

from __future__ import annotations

from dataclasses import dataclass

from fedexp.core.hooks import Elsewhere, Gradients, Rule, Turn
from fedexp.core.options import ranged
from fedexp.core.replies import Carries
from fedexp.core.roles import Client, Job
from fedexp.core.weights import Weights
from fedexp.strategies.base import Strategy, register


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
    carries = Carries()

    name: str = "perfedavg"
    alpha: float = ranged(0.01, ge=0)
    """Size of the step that adapts the model to a client."""
    adaptation_steps: int = ranged(1, ge=1)
    """SGD steps that a client takes from the global model before it is tested."""

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
        return job.train(steps=self._steps, rule=_Adapt(self._alpha))


class _Adapt(Rule):
    """Takes the plain steps that training looked ahead by, whatever the optimizer is."""

    def __init__(self, alpha: float) -> None:
        self._alpha = alpha

    def gradients(self, turn: Turn) -> None:
        """Step."""
        import torch

        slopes = turn.gradient()
        with torch.no_grad():
            for parameter, slope in zip(self.moving, slopes, strict=True):
                if slope is not None:
                    parameter.sub_(self._alpha * slope)


class _LookAhead(Elsewhere):
    """Takes the gradient where a step leads to."""

    def __init__(self, alpha: float) -> None:
        self._alpha = alpha

    def gradients(self, turn: Turn) -> Gradients:
        """Step, look at another batch, step back."""
        first = turn.gradient()
        turn.another()
        return self.gradient_at(turn, first, -self._alpha)
