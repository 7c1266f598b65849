from __future__ import annotations

import pytest
from support.helpers import (
    Clients,
    config,
    initial_weights,
    same_weights,
    sent,
    setup,
    tiny_data,
    values,
    weights_of,
)

from fedexp.core.roles import Order, Server, Updates
from fedexp.core.weights import Weights
from fedexp.strategies import Strategy
from fedexp.strategies.fedavg import FedAvg
from fedexp.strategies.local_only import LocalOnly, LocalOnlyServer

INITIAL = weights_of(1.0)


def _answers(orders: dict[int, Order]) -> Updates:
    """Return the updates of clients of which client k adds 10**k to the weight it is sent."""
    return Updates(
        [
            sent(client, float(order.weights["w"][0]) + 10**client, num_examples=client + 1)
            for client, order in orders.items()
        ]
    )


def _round(server: Server, server_round: int, cohort: list[int]) -> None:
    updates = _answers(server.instruct(server_round, INITIAL, cohort))
    assert server.combine(server_round, INITIAL, updates) is INITIAL  # no new global model


@pytest.fixture
def server() -> LocalOnlyServer:
    server = LocalOnly().server(setup(3))
    assert isinstance(server, LocalOnlyServer)
    return server


def test_local_models_are_never_mixed(server: LocalOnlyServer) -> None:
    for server_round in (1, 2):
        _round(server, server_round, [0, 1, 2])
    # Each starts from 1 and adds its own step twice.
    found = {client: values(weights) for client, weights in server.own.items()}
    assert found == {0: [3.0], 1: [21.0], 2: [201.0]}


def test_who_sits_out_keeps_its_weights(server: LocalOnlyServer) -> None:
    _round(server, 1, [0, 1])
    before = server.models(INITIAL)
    _round(server, 2, [1])
    after = server.models(INITIAL)
    # 1 + 1, 1 + 10 + 10, and a client that was never asked.
    assert {k: values(own) for k, own in after.items() if k is not None} == {
        0: [2.0],
        1: [21.0],
        2: [1.0],
    }
    assert list(after) == [0, 1, 2]  # there is no global model
    # The same objects are not tested again.
    assert [k for k in after if after[k] is not before[k]] == [1]
    assert after[2] is INITIAL
    assert [values(order.weights) for order in server.instruct(3, INITIAL, [0, 1, 2]).values()] == [
        [2.0],
        [21.0],
        [1.0],
    ]


def test_what_is_kept_is_a_copy(server: LocalOnlyServer) -> None:
    updates = _answers(server.instruct(1, INITIAL, [0]))
    server.combine(1, INITIAL, updates)
    updates[0].weights["w"][:] = 77.0  # on Ray, a reply's memory goes to the next one
    assert values(server.own[0]) == [2.0]


def test_train_loss_is_weighted_by_examples(server: LocalOnlyServer) -> None:
    updates = Updates([sent(k, 0.0, num_examples=1 + 2 * k, loss=4.0 * k) for k in (0, 1)])
    server.combine(1, INITIAL, updates)
    assert server.loss(updates) == 3.0  # (1*0 + 3*4) / 4


def _first_round(strategy: Strategy) -> dict[int, Weights]:
    """Return what each client has after one round, of a model on images."""
    experiment, data = config(strategy=strategy), tiny_data()
    initial, server = initial_weights(experiment), strategy.server(setup(3))
    updates = Clients(experiment, data).train(1, server.instruct(1, initial, [0, 1, 2]))
    server.combine(1, initial, updates)
    if isinstance(server, LocalOnlyServer):
        return server.own
    return {update.client: update.weights for update in updates}


def test_first_round_is_the_first_round_of_fedavg() -> None:
    alone, federated = _first_round(LocalOnly()), _first_round(FedAvg())
    assert list(alone) == list(federated) == [0, 1, 2]
    assert all(same_weights(alone[client], federated[client]) for client in alone)
    assert not same_weights(alone[0], alone[1])
