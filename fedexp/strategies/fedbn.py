"""FedBN: the layers that normalise stay with the clients."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from fedexp.core.layers import Layers
from fedexp.core.options import Plan
from fedexp.core.replies import Carries
from fedexp.core.roles import Client
from fedexp.strategies.base import KeepsLayers, Strategy, register


@register
@dataclass(frozen=True)
class FedBn(Strategy):
    """Li et al., arXiv 2102.07623: normalisation is every client's own, all other layers are averaged.

    Scales, shifts and statistics of BatchNorm stay with the client; so do those of GroupNorm and
    LayerNorm where a model has these. A newcomer trains them for a round's steps, which sets BatchNorm's
    statistics, too; the paper takes the statistics of the newcomer's data.
    """

    personalised = True
    asks = ("only",)
    carries = Carries()

    name: str = "fedbn"

    def errors(self, plan: Plan) -> Iterable[str]:
        """There must be something to keep."""
        if not plan.model.normalises:
            yield (
                f"strategy=fedbn keeps the layers that normalise with the clients, and model="
                f"{plan.model.name} has none: choose one that has, such as model=mobilenet_v3_small, "
                "cnn1d or transformer (of your own: normalises = True on its page)"
            )

    def keeps(self, layers: Layers) -> Collection[str]:
        """Return the entries of the layers that normalise."""
        return layers.norms

    def client(self) -> Client:
        """Return the client's side."""
        return KeepsLayers()
