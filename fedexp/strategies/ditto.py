"""Ditto: every client has a model of its own beside the global one, and is held near that."""

from __future__ import annotations

from dataclasses import dataclass

from fedexp.core.options import Span, ranged
from fedexp.core.replies import Carries
from fedexp.core.roles import Client, Job
from fedexp.core.weights import Weights
from fedexp.strategies.base import Strategy, register

OWN = "own"


@register
@dataclass(frozen=True)
class Ditto(Strategy):
    """Li et al., arXiv 2012.04221, algorithm 1, with FedAvg for the global model.

    Beside its part in FedAvg, a client trains a model ``v`` of its own on its loss plus
    ``lam / 2 * ||v - w||^2``, ``w`` the global model it was sent; both take a round's steps. With ``lam``
    0, ``v`` is what isolated training gives, to the bit, if the client is in every round. A client's
    ``v`` starts as the first global model that it is sent. The paper has no rule for newcomers: here they
    train ``v`` for a round's steps.
    """

    personalised = True
    asks = ("pull",)
    carries = Carries()

    name: str = "ditto"
    lam: float = ranged(1.0, ge=0, tuned=Span(0.01, 10.0, log=True))
    """Strength of the pull towards the global model (lambda); 0 is isolated training."""

    def client(self) -> Client:
        """Return the client's side."""
        return DittoClient(self.lam)


class DittoClient(Client):
    """Train the own model and the global one, in that order, on the same batches."""

    def __init__(self, lam: float) -> None:
        self._lam = lam

    def run(self, job: Job) -> None:
        """Keep the own model, send the other."""
        job.state[OWN] = self._personal(job)
        job.send(job.train(again=True))

    def weights_to_test(self, job: Job) -> Weights:
        """Return the own model."""
        own = job.state.get(OWN)
        return own if isinstance(own, dict) else self._personal(job)

    def _personal(self, job: Job) -> Weights:
        own = job.state.get(OWN, job.model)
        assert isinstance(own, dict)
        return job.train(own, pull=self._lam, toward=job.model)
