"""FedDyn: clients' losses are bent so that their optima agree with the global one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedexp.core.options import Span, ranged
from fedexp.core.replies import Carries
from fedexp.core.roles import Client, Job, Server, Setup, Updates
from fedexp.core.weights import Weights
from fedexp.strategies.base import Strategy, register

OWN = "own"


@register
@dataclass(frozen=True)
class FedDyn(Strategy):
    """Acar et al., ICLR 2021, arXiv 2111.04263, algorithm 1.

    A client minimises ``loss(w) - <g_k, w> + alpha / 2 ||w - x||^2`` and then takes ``alpha (w - x)`` off
    ``g_k``. The server keeps ``h``, the mean of all ``g_k``, and moves to the clients' unweighted mean
    less ``h / alpha``. Without ``alpha`` it is the unweighted FedAvg.
    """

    averages_buffers = True
    asks = ("pull", "correction")
    carries = Carries()

    name: str = "feddyn"
    alpha: float = ranged(0.01, ge=0, tuned=Span(0.001, 0.1, log=True))
    """Strength of the regularisation; the paper tunes it among 0.1, 0.01 and 0.001. 0 is FedAvg, every
    client alike."""

    def server(self, setup: Setup) -> Server:
        """Return the server's side."""
        return FedDynServer(self.alpha, setup.num_clients)

    def client(self) -> Client:
        """Return the client's side."""
        return FedDynClient(self.alpha)


class FedDynServer(Server):
    """``h -= alpha / m * sum (w_k - x)``, then ``mean w_k - h / alpha``; here as ``h / alpha``.

    Attributes:
        shift: ``h / alpha``; empty before round 1.
    """

    def __init__(self, alpha: float, num_clients: int) -> None:
        self._alpha, self._num_clients = alpha, num_clients
        self.shift: Weights = {}

    def combine(self, t: int, model: Weights, updates: Updates) -> Weights:
        """Every client of the cohort counts alike."""
        mean = updates.mean([1 / len(updates)] * len(updates))
        if not self._alpha:
            return mean
        share = len(updates) / self._num_clients
        before = self.shift or {name: np.zeros_like(x) for name, x in model.items()}
        self.shift = {name: before[name] - share * (mean[name] - x) for name, x in model.items()}
        return {name: array - self.shift[name] for name, array in mean.items()}


class FedDynClient(Client):
    """Train on the bent loss."""

    def __init__(self, alpha: float) -> None:
        self._alpha = alpha

    def run(self, job: Job) -> None:
        """Keep the own gradient for the next round."""
        if not self._alpha:
            job.send(job.train())
            return
        kept, x = job.state.get(OWN), job.model
        own = kept if isinstance(kept, dict) else {n: np.zeros_like(x[n]) for n in job.parameters}
        trained = job.train(pull=self._alpha, correction={n: -own[n] for n in job.parameters})
        job.state[OWN] = {n: own[n] - self._alpha * (trained[n] - x[n]) for n in job.parameters}
        job.send(trained)
