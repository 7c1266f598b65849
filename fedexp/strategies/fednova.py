"""FedNova: updates are divided by the steps behind them before they are averaged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedexp.core.replies import Carries
from fedexp.core.roles import Client, Job, Server, Setup, Updates
from fedexp.core.weights import Weights
from fedexp.strategies.base import Strategy, gradient_mass, register

GRADIENT_MASS = "gradient-mass"
MASSES = (0.5, 1e9)
"""One step weighs 1 and nobody takes a thousand million; updates are multiplied and divided by it."""


@register
@dataclass(frozen=True)
class FedNova(Strategy):
    """Wang et al., NeurIPS 2020, arXiv 2007.07481.

    ``x += tau_eff * sum p_i (y_i - x) / a_i`` with ``tau_eff = sum p_i a_i``, where ``p_i`` is the
    client's share of examples and ``a_i`` its gradient mass (its steps, when there is no momentum).
    """

    needs_sgd: ClassVar[bool] = True
    averages_buffers: ClassVar[bool] = True

    name: str = "fednova"

    @property
    def carries(self) -> Carries:
        """A client's gradient mass."""
        return Carries(numbers={GRADIENT_MASS: MASSES})

    def server(self, setup: Setup) -> Server:
        """Return the server's side."""
        return FedNovaServer()

    def client(self) -> Client:
        """Return the client's side."""
        return FedNovaClient()


class FedNovaServer(Server):
    """Average the updates per unit of gradient mass, and scale by the mean mass."""

    def combine(self, t: int, model: Weights, updates: Updates) -> Weights:
        """Add up in float64."""
        shares = np.array(updates.shares)
        mass = np.array([update.numbers[GRADIENT_MASS] for update in updates], dtype=np.float64)
        factors = (shares @ mass) * shares / mass
        moved = {name: array.astype(np.float64) for name, array in model.items()}
        for factor, update in zip(factors, updates, strict=True):
            for name, array in update.weights.items():
                moved[name] += factor * (array - model[name])
        return {name: moved[name].astype(array.dtype) for name, array in model.items()}


class FedNovaClient(Client):
    """Train as usual and say how much the steps weigh."""

    def run(self, job: Job) -> None:
        """Send the gradient mass along."""
        mass = gradient_mass(job.steps, job.momentum)
        job.send(job.train(), numbers={GRADIENT_MASS: mass})
