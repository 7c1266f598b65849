"""Federated averaging with momentum on the server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fedexp.core.options import Span, ranged
from fedexp.core.roles import Server, Setup
from fedexp.strategies.base import Strategy, register


@register
@dataclass(frozen=True)
class FedAvgM(Strategy):
    """Hsu et al., arXiv 1909.06335, by Flower's FedAvgM.

    ``v = server_momentum v - d``, ``x - server_learning_rate v``, with ``d`` the mean update.
    """

    averages_buffers: ClassVar[bool] = True

    name: str = "fedavgm"
    server_learning_rate: float = ranged(1.0, gt=0, tuned=Span(0.1, 3.0, log=True))
    """Factor of the update that the server makes."""
    server_momentum: float = ranged(0.9, ge=0, lt=1, tuned=Span(0.0, 0.99))
    """Share of the last update that goes on."""

    def server(self, setup: Setup) -> Server:
        """Return Flower's strategy behind the adapter."""
        from flwr.serverapp import strategy

        from fedexp.flower.strategies import WHOLE_COHORT, FlowerServer

        flowers = strategy.FedAvgM(
            server_learning_rate=self.server_learning_rate,
            server_momentum=self.server_momentum,
            **WHOLE_COHORT,
        )
        return FlowerServer(flowers, reads="one by one")
