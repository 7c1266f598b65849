"""FedProx: clients are held near the global model."""

from __future__ import annotations

from dataclasses import dataclass

from fedexp.core.options import Span, ranged
from fedexp.core.replies import Carries
from fedexp.core.roles import Client, Job
from fedexp.strategies.base import Strategy, register


@register
@dataclass(frozen=True)
class FedProx(Strategy):
    """Li et al., MLSys 2020, arXiv 1812.06127.

    FedAvg whose clients add ``proximal_mu / 2 * ||w - w_t||^2`` to their loss. Clients that do fewer
    steps than the others (``clients.stragglers``) count in full, as in the paper's experiments.
    """

    asks = ("pull",)
    carries = Carries()

    name: str = "fedprox"
    proximal_mu: float = ranged(0.1, ge=0, tuned=Span(0.001, 1.0, log=True))
    """Strength of the pull towards the global model; 0 is FedAvg."""

    def client(self) -> Client:
        """Return the client's side."""
        return FedProxClient(self.proximal_mu)


class FedProxClient(Client):
    """Train with a pull to where the round started."""

    def __init__(self, proximal_mu: float) -> None:
        self._mu = proximal_mu

    def run(self, job: Job) -> None:
        """Add the gradient of the proximal term to every gradient."""
        job.send(job.train(pull=self._mu))
