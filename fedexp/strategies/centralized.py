"""The upper reference: all the data in one place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fedexp.core.roles import Order, Server, Setup
from fedexp.core.weights import Weights
from fedexp.strategies.base import CENTRALIZED, Strategy, register


@register
@dataclass(frozen=True)
class Centralized(Strategy):
    """No federation: the examples of a round's clients train one model, as if they were one client's.

    The same examples, as often, in the same round as under FedAvg; with every client in every round that
    is training on the union of all data. What goes wrong with clients does not go wrong here.
    """

    kind = CENTRALIZED
    sends_weights = False

    name: str = "centralized"

    def server(self, setup: Setup) -> Server:
        """Return the server's side."""
        return CentralizedServer()


class CentralizedServer(Server):
    """Have the first client of a cohort train on everybody's examples."""

    def instruct(self, t: int, model: Weights, cohort: Sequence[int]) -> dict[int, Order]:
        """Instruct the first client of the cohort."""
        return {cohort[0]: Order(model, examples_of=tuple(cohort))}
