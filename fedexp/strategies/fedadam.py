"""Adam on the server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fedexp.core.options import Span, ranged
from fedexp.core.roles import Server, Setup
from fedexp.strategies.base import Strategy, register


@register
@dataclass(frozen=True)
class FedAdam(Strategy):
    """Reddi et al., ICLR 2021, arXiv 2003.00295, by Flower's FedAdam.

    Departures that are Flower's: the second moment starts at 0, and the rate is corrected for the bias of
    Adam's first rounds.
    """

    averages_buffers: ClassVar[bool] = True
    squares_weights: ClassVar[bool] = True

    name: str = "fedadam"
    eta: float = ranged(0.01, gt=0, tuned=Span(0.001, 0.3, log=True))
    """Learning rate of the server."""
    beta_1: float = ranged(0.9, ge=0, lt=1)
    """Decay of the first moment, the mean update."""
    beta_2: float = ranged(0.99, ge=0, lt=1)
    """Decay of the second moment, the mean squared update."""
    tau: float = ranged(0.001, gt=0)
    """Degree of adaptivity; the smaller, the more each coordinate has a rate of its own."""

    def server(self, setup: Setup) -> Server:
        """Return Flower's strategy behind the adapter."""
        from flwr.serverapp import strategy

        return self._behind_adapter(strategy.FedAdam)

    def _behind_adapter(self, flowers: type) -> Server:
        from fedexp.flower.strategies import WHOLE_COHORT, FlowerServer

        options = {"beta_1": self.beta_1, "beta_2": self.beta_2, "tau": self.tau}
        made = flowers(eta=self.eta, **options, **WHOLE_COHORT)
        return FlowerServer(made, reads="one by one")
