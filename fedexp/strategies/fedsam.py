"""FedSAM: clients look for flat minima."""

from __future__ import annotations

from dataclasses import dataclass

from fedexp.core.hooks import Elsewhere, Gradients, Turn
from fedexp.core.options import Span, ranged
from fedexp.core.replies import Carries
from fedexp.core.roles import Client, Job
from fedexp.strategies.base import Strategy, register


@register
@dataclass(frozen=True)
class FedSam(Strategy):
    """Qu et al., ICML 2022, arXiv 2206.02618: FedAvg with sharpness-aware minimisation on clients.

    Every step takes the gradient at ``w + rho * g / ||g||``, ``g`` the gradient at ``w`` on the same
    batch, and the norm that of all parameters together. With ``rho`` 0 this is FedAvg. A step costs two
    gradients. The paper tunes ``rho``; 0.05 is the default of Foret et al. (arXiv 2010.01412).
    """

    asks = ("rule",)
    carries = Carries()

    name: str = "fedsam"
    rho: float = ranged(0.05, ge=0, tuned=Span(0.005, 0.5, log=True))
    """How far up the slope a step looks; 0 is FedAvg."""

    def client(self) -> Client:
        """Return the client's side."""
        return FedSamClient(self.rho)


class FedSamClient(Client):
    """Train with gradients from up the slope."""

    def __init__(self, rho: float) -> None:
        self._rho = rho

    def run(self, job: Job) -> None:
        """Train, send."""
        job.send(job.train(rule=_Sharpness(self._rho)))


class _Sharpness(Elsewhere):
    """Takes the gradient where the loss is highest nearby."""

    def __init__(self, rho: float) -> None:
        self._rho = rho

    def gradients(self, turn: Turn) -> Gradients:
        """Go up, look, come back."""
        import torch

        found = turn.gradient()
        given = [slope for slope in found if slope is not None]
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in given]))
        if not self._rho or not norm:
            return found
        return self.gradient_at(turn, found, self._rho / norm)
