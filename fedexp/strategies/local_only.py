"""The lower reference: isolated clients, nothing is combined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fedexp.core.roles import Order, Server, Setup, Updates
from fedexp.core.weights import Weights, copied
from fedexp.strategies.base import ISOLATED, Strategy, register


@register
@dataclass(frozen=True)
class LocalOnly(Strategy):
    """The lower reference: isolated clients, each trained alone from the same initial weights.

    The server sends every client its own model back. So an isolated client takes as many steps a round as
    a federated one, and their curves can be compared.
    """

    kind = ISOLATED
    sends_weights = False

    name: str = "local_only"

    def server(self, setup: Setup) -> Server:
        """Return the server's side."""
        return LocalOnlyServer(setup.num_clients)


class LocalOnlyServer(Server):
    """Keep one model per client and never mix them.

    Attributes:
        own: Partition id -> the weights that client sent last.
    """

    def __init__(self, num_clients: int) -> None:
        self._num_clients = num_clients
        self.own: dict[int, Weights] = {}

    def instruct(self, t: int, model: Weights, cohort: Sequence[int]) -> dict[int, Order]:
        """Send every client its own weights, or the initial ones the first time."""
        initial = Order(model)
        return {k: Order(self.own[k]) if k in self.own else initial for k in cohort}

    def combine(self, t: int, model: Weights, updates: Updates) -> Weights:
        """Keep what each client sent; there is no new global model."""
        for update in updates:
            self.own[update.client] = copied(update.weights)
        return model

    def models(self, model: Weights) -> dict[int | None, Weights]:
        """Return every client's model."""
        return {client: self.own.get(client, model) for client in range(self._num_clients)}
