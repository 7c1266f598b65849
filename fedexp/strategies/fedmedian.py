"""The median of every coordinate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fedexp.core.roles import Server, Setup
from fedexp.strategies.base import Strategy, register


@register
@dataclass(frozen=True)
class FedMedian(Strategy):
    """Yin et al., ICML 2018, arXiv 1803.01498: the median of every coordinate, unweighted.

    Flower's FedMedian; of an even number, the mean of the two in the middle.
    """

    formula: ClassVar[str] = "3 (the median of two is their mean)"

    name: str = "fedmedian"

    @property
    def min_clients(self) -> int:
        """Three: the median of fewer is their mean, which withstands nothing."""
        return 3

    def server(self, setup: Setup) -> Server:
        """Return Flower's strategy behind the adapter."""
        from flwr.serverapp import strategy

        from fedexp.flower.strategies import WHOLE_COHORT, FlowerServer

        return FlowerServer(strategy.FedMedian(**WHOLE_COHORT), reads="coordinates")
