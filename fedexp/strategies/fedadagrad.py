"""Adagrad on the server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fedexp.core.options import Span, ranged
from fedexp.core.roles import Server, Setup
from fedexp.strategies.base import Strategy, register


@register
@dataclass(frozen=True)
class FedAdagrad(Strategy):
    """Reddi et al., ICLR 2021, arXiv 2003.00295, by Flower's FedAdagrad."""

    averages_buffers: ClassVar[bool] = True
    squares_weights: ClassVar[bool] = True

    name: str = "fedadagrad"
    eta: float = ranged(0.03, gt=0, tuned=Span(0.001, 0.3, log=True))
    """Learning rate of the server."""
    tau: float = ranged(0.001, gt=0)
    """Degree of adaptivity; the smaller, the more each coordinate has a rate of its own."""

    def server(self, setup: Setup) -> Server:
        """Return Flower's strategy behind the adapter."""
        from flwr.serverapp import strategy

        from fedexp.flower.strategies import WHOLE_COHORT, FlowerServer

        flowers = strategy.FedAdagrad(eta=self.eta, tau=self.tau, **WHOLE_COHORT)
        return FlowerServer(flowers, reads="one by one")
