"""FedSAM: clients look for flat minima."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedexp.core.hooks import Gradients, Rule, Turn
from fedexp.core.options import Span, ranged
from fedexp.core.replies import Carries
from fedexp.core.roles import Client, Job
from fedexp.strategies.base import Strategy, register

if TYPE_CHECKING:
    from torch import Tensor


@register
@dataclass(frozen=True)
class FedSam(Strategy):
    """Qu et al., ICML 2022, arXiv 2206.02618: FedAvg with sharpness-aware minimisation on clients.

    Every step takes the gradient at ``w + rho * g / ||g||``, ``g`` the gradient at ``w`` on the same
    batch, and the norm that of all parameters together. With ``rho`` 0 this is FedAvg. A step costs two
    gradients. The paper tunes ``rho``; 0.05 is the default of Foret et al. (arXiv 2010.01412).
    """

    asks = ("rule",)

    name: str = "fedsam"
    rho: float = ranged(0.05, ge=0, tuned=Span(0.005, 0.5, log=True))
    """How far up the slope a step looks; 0 is FedAvg."""

    @property
    def carries(self) -> Carries:
        """Nothing further, as under FedAvg."""
        return Carries()

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


class _Sharpness(Rule):
    """Takes the gradient where the loss is highest nearby."""

    def __init__(self, rho: float) -> None:
        self._rho = rho

    def begin(
        self,
        parameters: Mapping[str, Tensor],
        optimizer: Callable[[Sequence[Tensor]], Callable[[Gradients], None]],
    ) -> None:
        """Remember what moves."""
        self._parameters = list(parameters.values())

    def gradients(self, turn: Turn) -> Gradients:
        """Go up, look, come back."""
        import torch

        found = turn.gradient()
        given = [slope for slope in found if slope is not None]
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in given]))
        if not self._rho or not norm:
            return found
        before = [parameter.detach().clone() for parameter in self._parameters]
        with torch.no_grad():
            for parameter, slope in zip(self._parameters, found, strict=True):
                if slope is not None:
                    parameter.add_(self._rho / norm * slope)
        there = turn.gradient()
        with torch.no_grad():
            for parameter, value in zip(self._parameters, before, strict=True):
                parameter.copy_(value)
        return there
