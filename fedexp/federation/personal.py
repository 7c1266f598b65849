"""The models that a personalised strategy makes for its clients, and what stays with them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from fedexp.config.schema import Config
from fedexp.core.options import FedexpError
from fedexp.core.roles import Order, Server
from fedexp.core.weights import Weights, copied
from fedexp.federation.client import TUNED_STEPS
from fedexp.federation.cohort import seen_clients, unseen_clients
from fedexp.federation.evaluation import BuiltModel
from fedexp.federation.exchange import sharing
from fedexp.federation.outcome import Outcome
from fedexp.strategies.base import carried

Ask = Callable[[int, Mapping[int, Order]], list[tuple[int, Weights]]]
"""From a round and orders to the models that clients made, of those whose replies can be used."""


def kept_entries(config: Config, evaluation: BuiltModel) -> frozenset[str]:
    """Return the model's entries that stay with every client.

    Raises:
        FedexpError: If the strategy keeps all that is trained and sends nothing else, or if it keeps
            something that the model has not.
    """
    strategy, layers = config.strategy, evaluation.layers
    kept = frozenset(strategy.keeps(layers))
    carries = carried(strategy)
    shares_more = carries is not None and bool(carries.arrays or carries.free)
    if kept and not shares_more and not layers.trained(layers.others(kept)):
        raise FedexpError(
            f"strategy={strategy.name} leaves all layers of model={config.model.name} with clients, and "
            "nothing is shared: choose a model of more layers, or name fewer of them (fedexp help "
            f"{strategy.name})"
        )
    return kept


class PersonalModels:
    """Has clients make the models that they are tested with.

    Args:
        config: The experiment.
        server: The server's side of the strategy.
        evaluation: Tests models.
        by_clients: Whether all clients test themselves in every round, each with a model made anew.
    """

    def __init__(
        self, config: Config, server: Server, evaluation: BuiltModel, *, by_clients: bool = False
    ) -> None:
        self._by_clients = by_clients
        self._config, self._server, self._initial = config, server, evaluation.initial
        self._listed = evaluation.listed

    def renew(self, server_round: int, outcome: Outcome, ask: Ask) -> None:
        """Have clients that trained since make their models anew; in the last round, and where all test
        themselves, all clients."""
        if self._config.strategy.personalised:
            everybody = self._by_clients or server_round == self._config.num_rounds
            asked = seen_clients(self._config) if everybody else sorted(outcome.trained)
            outcome.personal |= self._made(server_round, outcome.weights, asked, ask)
            outcome.trained.clear()

    def now(self, outcome: Outcome) -> dict[int | None, Weights]:
        """Return the models that are tested: who has not been asked has the initial one."""
        if not self._config.strategy.personalised:
            return self._server.models(outcome.weights)
        everybody = seen_clients(self._config)
        return {client: outcome.personal.get(client, self._initial) for client in everybody}

    def of_newcomers(self, outcome: Outcome, ask: Ask) -> dict[int, Weights]:
        """Return the models of clients that took part in no round, by the strategy's rule for them."""
        unseen = unseen_clients(self._config)
        if not self._config.strategy.personalised or not unseen:
            return {}
        return self._made(outcome.rounds, outcome.weights, unseen, ask)

    def tuned(self, outcome: Outcome, ask: Ask) -> dict[int, Weights]:
        """Return what ``clients.tuned_steps`` more steps make of every listed client's model."""
        steps = self._config.clients.tuned_steps
        if not steps:
            return {}
        return self._made(outcome.rounds, outcome.weights, self._listed, ask, steps)

    def _made(
        self, server_round: int, model: Weights, clients: Sequence[int], ask: Ask, steps: int = 0
    ) -> dict[int, Weights]:
        orders = self.orders(model, clients)
        if steps:
            orders = sharing(orders, lambda order: _with_steps(order, steps))
        return {client: copied(weights) for client, weights in ask(server_round, orders)}

    def orders(self, model: Weights, clients: Sequence[int]) -> dict[int, Order]:
        """Say what clients are sent that are to test a model, or to make the one that they test."""
        if self._config.strategy.personalised:
            return self._server.before_tests(model, clients)
        models = self._server.models(model)
        shared = Order(models[None]) if None in models else None
        return {k: Order(models[k]) if k in models or not shared else shared for k in clients}


def _with_steps(order: Order, steps: int) -> Order:
    return dataclasses.replace(order, numbers={**order.numbers, TUNED_STEPS: steps})
