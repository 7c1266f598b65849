"""What every strategy's server has in common: whom it asks, what it sends, which model is tested."""

from __future__ import annotations

from typing import Any

import pytest
from flwr.app import ConfigRecord
from support.helpers import FirstWeight, config, sent, setup, values, weights_of

from fedexp import strategies
from fedexp.core.buffers import BuffersApart
from fedexp.core.roles import Client, Order, Server, Updates
from fedexp.federation.servers import build_server
from fedexp.flower.messages import CONFIG, pack_order
from fedexp.flower.strategies import FlowerServer
from fedexp.strategies import CENTRALIZED, FEDERATED, ISOLATED, Strategy
from fedexp.strategies.fedadam import FedAdam
from fedexp.strategies.fedavg import FedAvg
from fedexp.strategies.fedprox import FedProx, FedProxClient
from fedexp.strategies.krum import Krum
from fedexp.strategies.local_only import LocalOnly, LocalOnlyServer

REPLIES = [
    sent(0, 1.0, -2.0, num_examples=10, loss=2.0),
    sent(1, 4.0, 6.0, num_examples=30, loss=1.0),
    sent(2, 0.0, 8.0, num_examples=40, loss=0.25),
]
EVERY: list[Strategy] = [page() for page in strategies.REGISTRY.pages().values()]
FEDERATED_ONES = [page for page in EVERY if page.kind == FEDERATED]


def _named(page: Strategy) -> str:
    return page.name


@pytest.mark.parametrize(
    ("num_clients", "expected", "loss"),
    [
        # (10*1 + 30*4) / 40, (10*-2 + 30*6) / 40; (10*2 + 30*1) / 40
        (2, [3.25, 4.0], 1.25),
        # (10*1 + 30*4 + 40*0) / 80, (10*-2 + 30*6 + 40*8) / 80; (20 + 30 + 10) / 80
        (3, [1.625, 6.0], 0.75),
        # One client's average is that client.
        (1, [1.0, -2.0], 2.0),
    ],
)
def test_fedavg_is_the_mean_weighted_by_examples(
    num_clients: int, expected: list[float], loss: float
) -> None:
    server, updates = FedAvg().server(setup(num_clients)), Updates(REPLIES[:num_clients])
    assert values(server.combine(1, weights_of(0.0, 0.0), updates)) == expected
    assert server.loss(updates) == loss


@pytest.mark.parametrize("strategy", EVERY, ids=_named)
def test_one_client_alone_is_not_kept_waiting(
    strategy: Strategy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait(_: float) -> None:
        raise AssertionError("Flower waits for a second client that does not exist")

    monkeypatch.setattr("flwr.serverapp.strategy.strategy_utils.sleep", wait)
    assert list(strategy.server(setup(1)).instruct(1, weights_of(0.0), [0])) == [0]


@pytest.mark.parametrize(
    "strategy", [page for page in EVERY if page.kind != CENTRALIZED], ids=_named
)
def test_servers_instruct_the_whole_cohort(strategy: Strategy) -> None:
    model = weights_of(1.0)
    orders = strategy.server(setup(3)).instruct(5, model, [0, 2])
    assert sorted(orders) == [0, 2]
    assert orders[0] is orders[2]  # one copy of it on its way
    assert orders[0].weights is model
    assert orders[0].examples_of == ()


@pytest.mark.parametrize("strategy", EVERY, ids=_named)
def test_messages_name_the_round_and_whose_examples_are_trained_on(strategy: Strategy) -> None:
    orders = strategy.server(setup(3)).instruct(5, weights_of(1.0), [0, 2])
    told: dict[str, Any] = {"server-round": 5}
    if strategy.kind == CENTRALIZED:
        told["partition-ids"] = [0, 2]
    for order in orders.values():
        assert pack_order(order, 5)[CONFIG] == ConfigRecord(told)


@pytest.mark.parametrize("strategy", FEDERATED_ONES, ids=_named)
def test_a_federation_has_one_model(strategy: Strategy) -> None:
    model = weights_of(1.0)
    models = strategy.server(setup(3)).models(model)
    assert list(models) == [None]
    assert models[None] is model


def test_strategies_by_name() -> None:
    assert strategies.get("fedavg") is FedAvg
    assert strategies.get("local_only") is LocalOnly
    assert {page.name: page.kind for page in EVERY if page.kind != FEDERATED} == {
        "centralized": CENTRALIZED,
        "local_only": ISOLATED,
    }
    assert all(strategies.get(page.name) is type(page) for page in EVERY)


def test_the_plain_ones_are_the_defaults() -> None:
    plain = FedAvg()
    assert type(plain.server(setup())) is Server
    assert type(plain.client()) is Client
    assert type(FedProx().server(setup())) is Server
    assert type(FedProx().client()) is FedProxClient
    assert type(LocalOnly().server(setup())) is LocalOnlyServer
    assert type(LocalOnly().client()) is Client


def test_a_run_keeps_buffers_from_those_who_must_not_see_them() -> None:
    evaluation = FirstWeight(0.0)

    def kind_of(strategy: Strategy) -> type[Server]:
        return type(build_server(config(strategy=strategy), evaluation))

    assert [kind_of(s) for s in (FedAdam(), FedAvg())] == [FlowerServer, Server]
    evaluation.buffers = frozenset({"running_var"})
    assert [kind_of(s) for s in (FedAdam(), FedAvg())] == [BuffersApart, Server]
    assert kind_of(Krum()) is not BuffersApart


def test_a_server_is_told_of_clients_model_and_rate() -> None:
    told: list[Any] = []

    class Curious(FedAvg):
        def server(self, setup: Any) -> Server:
            told.append(setup)
            return Server()

    evaluation = FirstWeight(0.0)
    evaluation.buffers = frozenset({"n"})
    build_server(config(strategy=Curious()), evaluation)
    (known,) = told
    assert (known.num_clients, known.parameters, known.buffers) == (3, ("w",), {"n"})
    assert known.learning_rate(7) == config().training.rate(7)


def test_every_order_starts_from_the_model_alone() -> None:
    """Few send arrays beside the model, and nobody sends numbers."""
    beside = {}
    for strategy in EVERY:
        order: Order = strategy.server(setup()).instruct(1, weights_of(0.0), [0])[0]
        assert order.numbers == {}
        if order.arrays:
            beside[strategy.name] = list(order.arrays)
    assert beside == {"fedcm": ["direction"], "ifca": ["cluster-1"], "scaffold": ["control"]}
