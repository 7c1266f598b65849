"""FedPer: the last layers stay with the clients."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from fedexp.core.layers import HEAD, Layers
from fedexp.core.replies import Carries
from fedexp.core.roles import Client
from fedexp.strategies.base import KeepsLayers, Strategy, register


@register
@dataclass(frozen=True)
class FedPer(Strategy):
    """Arivazhagan et al., arXiv 1912.00818: clients keep the last layers and share the others.

    All layers are trained together; those that are shared are averaged by examples. Without layers of
    their own, this is FedAvg. The paper has no rule for newcomers: here they train their own layers for
    a round's steps, the shared ones fixed.
    """

    personalised = True
    asks = ("only",)
    carries = Carries()

    name: str = "fedper"
    personal_layers: list[str] = field(default_factory=lambda: [HEAD])
    """Layers that stay with every client: head (the last one), norm, or how their entries begin, as fc or
    layer4."""

    def keeps(self, layers: Layers) -> Collection[str]:
        """Return the entries of the clients' own layers."""
        return layers.chosen(self.personal_layers, "strategy.personal_layers")

    def client(self) -> Client:
        """Return the client's side."""
        return KeepsLayers()
