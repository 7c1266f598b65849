"""Multi-Krum: the mean of what Krum likes best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fedexp.core.options import ranged
from fedexp.core.roles import Server, Setup
from fedexp.strategies.base import register
from fedexp.strategies.krum import Krum, KrumServer


@register
@dataclass(frozen=True)
class MultiKrum(Krum):
    """Blanchard et al., NeurIPS 2017, arXiv 1703.02757.

    The mean of the ``num_selected`` updates with the best scores of Krum, weighted by examples.
    """

    formula: ClassVar[str] = (
        "max(2 * strategy.num_malicious + 3, strategy.num_malicious + 2 + strategy.num_selected)"
    )

    name: str = "multikrum"
    num_selected: int = ranged(3, ge=1)
    """Updates that are averaged."""

    @property
    def min_clients(self) -> int:
        """Krum's condition, and num_selected <= n - f - 2."""
        return max(super().min_clients, self.num_malicious + 2 + self.num_selected)

    def server(self, setup: Setup) -> Server:
        """Return the server's side."""
        return KrumServer(self.num_malicious, self.num_selected)
