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
    """The upper reference: one model is trained on the examples of all the round's clients together.

    It sees the same examples as FedAvg, as often and in the same round. With every client in every round,
    this is training on the union of all data. Dropout, stragglers and faulty clients do not apply.
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
