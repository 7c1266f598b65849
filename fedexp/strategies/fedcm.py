"""FedCM: the last round's mean update goes into every step of the clients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedexp.core.options import Span, ranged
from fedexp.core.replies import Carries
from fedexp.core.roles import Client, Job, Order, Server, Setup, Updates
from fedexp.core.weights import Weights
from fedexp.strategies.base import Strategy, gradient_mass, register
from fedexp.strategies.fednova import GRADIENT_MASS, MASSES

DIRECTION = "direction"


@register
@dataclass(frozen=True)
class FedCm(Strategy):
    """Xu et al., arXiv 2106.10874: client-level momentum.

    Every step of a client goes along ``alpha g + (1 - alpha) direction``, where ``direction`` is the mean
    gradient of the round before: the clients' updates per learning rate and step, averaged by examples.
    The server takes the clients' mean, which is the paper's step of size ``learning rate * steps``. With
    ``alpha`` 1 this is FedAvg. Departure: the paper's clients have no momentum of their own; here steps
    are counted by ``gradient_mass``, and ``training.momentum=0`` is the paper.
    """

    needs_sgd = True
    averages_buffers = True
    asks = ("correction",)

    name: str = "fedcm"
    alpha: float = ranged(0.1, gt=0, le=1, tuned=Span(0.05, 1.0, log=True))
    """Weight of a step's own gradient; 1 is FedAvg."""

    @property
    def carries(self) -> Carries:
        """A client's gradient mass."""
        return Carries(numbers={GRADIENT_MASS: MASSES})

    def server(self, setup: Setup) -> Server:
        """Return the server's side."""
        return FedCmServer(setup)

    def client(self) -> Client:
        """Return the client's side."""
        return FedCmClient(self.alpha)


class FedCmServer(Server):
    """FedAvg that remembers where it went.

    Attributes:
        direction: The mean gradient of the last round; empty before round 1.
    """

    def __init__(self, setup: Setup) -> None:
        self._rate, self._parameters = setup.learning_rate, setup.parameters
        self.direction: Weights = {}

    def instruct(self, t: int, model: Weights, cohort: Sequence[int]) -> dict[int, Order]:
        """Send the direction beside the weights; zeros in round 1."""
        if not self.direction:
            self.direction = {name: np.zeros_like(model[name]) for name in self._parameters}
        return dict.fromkeys(cohort, Order(model, arrays={DIRECTION: self.direction}))

    def combine(self, t: int, model: Weights, updates: Updates) -> Weights:
        """Average, and note how far that is per step."""
        per_step = [
            share / (self._rate(t) * float(update.numbers[GRADIENT_MASS]))
            for share, update in zip(updates.shares, updates, strict=True)
        ]
        total = {n: np.zeros(model[n].shape) for n in self._parameters}
        for factor, update in zip(per_step, updates, strict=True):
            for name, sum_so_far in total.items():
                sum_so_far += factor * (model[name] - update.weights[name])
        self.direction = {n: array.astype(model[n].dtype) for n, array in total.items()}
        return updates.mean()


class FedCmClient(Client):
    """Mix the direction into every step."""

    def __init__(self, alpha: float) -> None:
        self._alpha = alpha

    def run(self, job: Job) -> None:
        """``alpha (g + (1 - alpha) / alpha direction)`` is the paper's step."""
        alpha, mass = self._alpha, gradient_mass(job.steps, job.momentum)
        direction = job.order.arrays[DIRECTION]
        factor = np.float32((1 - alpha) / alpha)
        correction = None if alpha == 1 else {n: factor * direction[n] for n in job.parameters}
        trained = job.train(correction=correction, rate=alpha * job.learning_rate)
        job.send(trained, numbers={GRADIENT_MASS: mass})
