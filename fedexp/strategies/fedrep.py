"""FedRep: a head for every client, on a representation that all learn together."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from fedexp.core.layers import HEAD, Layers
from fedexp.core.options import ranged
from fedexp.core.replies import Carries
from fedexp.core.roles import Client, Job
from fedexp.strategies.base import KeepsLayers, Strategy, register


@register
@dataclass(frozen=True)
class FedRep(Strategy):
    """Collins et al., arXiv 2102.07078: train the head, then the representation below it, by turns.

    A round's steps are divided: first the client's own head moves, then, with the head fixed, the layers
    that are shared. The paper's experiments spend ten epochs of eleven on the head; so do these, nearly.
    A newcomer trains a head of its own for a round's steps, as in the paper.
    """

    personalised = True
    asks = ("only",)
    carries = Carries()

    name: str = "fedrep"
    head_share: float = ranged(0.9, gt=0, lt=1)
    """Share of a round's steps that the clients' own layers are trained in; the shared ones get the rest,
    one step at least."""
    personal_layers: list[str] = field(default_factory=lambda: [HEAD])
    """Layers that stay with every client: head (the last one), norm, or how their entries begin, as fc or
    layer4."""

    def keeps(self, layers: Layers) -> Collection[str]:
        """Return the entries of the clients' own layers."""
        return layers.chosen(self.personal_layers, "strategy.personal_layers")

    def client(self) -> Client:
        """Return the client's side."""
        return FedRepClient(self.head_share)


class FedRepClient(KeepsLayers):
    """Train what stays, then what is shared."""

    def __init__(self, head_share: float) -> None:
        self._share = head_share

    def run(self, job: Job) -> None:
        """Divide the round's steps; each part takes one at least."""
        layers, model = job.layers, job.model
        own, shared = layers.trained(job.kept), layers.trained(layers.others(job.kept))
        first = min(round(self._share * job.steps), job.steps - 1) if own else 0
        if own:
            model = job.train(steps=max(1, first), only=own)
        job.send(job.train(model, steps=job.steps - first, only=shared))
