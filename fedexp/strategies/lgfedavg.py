"""LG-FedAvg: the first layers stay with the clients."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from fedexp.core.layers import HEAD, Layers
from fedexp.core.replies import Carries
from fedexp.core.roles import Client
from fedexp.strategies.base import KeepsLayers, Strategy, register


@register
@dataclass(frozen=True)
class LgFedAvg(Strategy):
    """Liang et al., arXiv 2001.01523: local representations, and a global model on top of them.

    FedPer the other way round: clients share the last layers and keep the others. All layers are trained
    together. Departures: training starts from the initial model, where the paper's experiments start from
    a model of FedAvg's; a newcomer trains layers of its own for a round's steps, where the paper asks an
    ensemble of all clients' layers.
    """

    personalised = True
    asks = ("only",)
    carries = Carries()

    name: str = "lgfedavg"
    shared_layers: list[str] = field(default_factory=lambda: [HEAD])
    """Layers that are shared: head (the last one), norm, or how their entries begin, as fc or layer4; all
    others stay with every client."""

    def keeps(self, layers: Layers) -> Collection[str]:
        """Return the entries of the clients' own layers."""
        return layers.others(layers.chosen(self.shared_layers, "strategy.shared_layers"))

    def client(self) -> Client:
        """Return the client's side."""
        return KeepsLayers()
