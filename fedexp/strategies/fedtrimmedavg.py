"""The trimmed mean of every coordinate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from fedexp.core.options import ranged
from fedexp.core.roles import Server, Setup
from fedexp.strategies.base import Strategy, register


@register
@dataclass(frozen=True)
class FedTrimmedAvg(Strategy):
    """Yin et al., ICML 2018, arXiv 1803.01498, by Flower's FedTrimmedAvg.

    For every coordinate, the ``int(beta * n)`` lowest and as many highest values are left out; the next
    model is the unweighted mean of the rest.
    """

    formula: ClassVar[str] = "1 / strategy.beta (with fewer, nothing is trimmed)"

    name: str = "fedtrimmedavg"
    beta: float = ranged(0.2, ge=0, lt=0.5)
    """Share of values that is left out at either end."""

    @property
    def min_clients(self) -> int:
        """The fewest of which at least one is trimmed at either end."""
        if self.beta == 0:
            return 1
        fewest = math.floor(1 / self.beta)
        return fewest if int(self.beta * fewest) >= 1 else fewest + 1

    def server(self, setup: Setup) -> Server:
        """Return Flower's strategy behind the adapter."""
        from flwr.serverapp import strategy

        from fedexp.flower.strategies import WHOLE_COHORT, FlowerServer

        flowers = strategy.FedTrimmedAvg(beta=self.beta, **WHOLE_COHORT)
        return FlowerServer(flowers, reads="coordinates")
