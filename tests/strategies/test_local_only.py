from __future__ import annotations

from fedexp.models.networks import initial_weights
from flwr.app import ConfigRecord, Message
from support.helpers import arrays, config, same_weights, scripted_app, tiny_data, trained, values

from fedexp.backends.inline import InlineGrid
from fedexp.core.weights import Weights
from fedexp.federation.client import build_client_app
from fedexp.flower.messages import to_record, to_weights
from fedexp.flower.strategies import build_strategy
from fedexp.strategies import Strategy
from fedexp.strategies.fedavg import FedAvg
from fedexp.strategies.local_only import LocalOnly


def _round(strategy: LocalOnly, grid: InlineGrid, server_round: int) -> list[Message]:
    messages = strategy.configure_train(server_round, arrays(1.0), ConfigRecord(), grid)
    return list(grid.send_and_receive(messages))


def _adding_grid() -> InlineGrid:
    """Return three clients; client k adds 10**k to the weight it is sent."""
    app = scripted_app(lambda client, w: trained(w[0] + 10**client, num_examples=client + 1))
    grid = InlineGrid(app, 3)
    grid.cohort = [0, 1, 2]
    return grid


def test_local_models_are_never_mixed() -> None:
    strategy, grid = LocalOnly(), _adding_grid()
    for server_round in (1, 2):
        aggregate, _ = strategy.aggregate_train(server_round, _round(strategy, grid, server_round))
        assert aggregate is None
    # Each starts from 1 and adds its own step twice.
    found = {client: values(record) for client, record in strategy.local_arrays.items()}
    assert found == {0: [3.0], 1: [21.0], 2: [201.0]}


def test_who_sits_out_keeps_its_weights() -> None:
    strategy, grid = LocalOnly(), _adding_grid()
    for server_round, cohort in ((1, [0, 1]), (2, [1])):
        grid.cohort = cohort
        strategy.aggregate_train(server_round, _round(strategy, grid, server_round))
        assert strategy.updated == cohort
    found = {client: values(record) for client, record in strategy.local_arrays.items()}
    assert found == {0: [2.0], 1: [21.0]}  # 1 + 1, 1 + 10 + 10
    grid.cohort = [0, 1, 2]
    sent = strategy.configure_evaluate(2, arrays(1.0), ConfigRecord(), grid)
    assert [values(message.content["arrays"]) for message in sent] == [[2.0], [21.0], [1.0]]


def test_train_loss_is_weighted_by_examples() -> None:
    app = scripted_app(lambda k, _: trained(0.0, num_examples=1 + 2 * k, loss=4.0 * k))
    grid = InlineGrid(app, 2)
    grid.cohort = [0, 1]
    strategy = LocalOnly()
    _, metrics = strategy.aggregate_train(1, _round(strategy, grid, 1))
    assert metrics is not None
    assert dict(metrics) == {"train_loss": 3.0}  # (1*0 + 3*4) / 4


def _first_round(strategy_config: Strategy) -> dict[int, Weights]:
    experiment, data = config(strategy=strategy_config), tiny_data()
    grid = InlineGrid(build_client_app(experiment, lambda: data), 3)
    grid.cohort = [0, 1, 2]
    initial = to_record(initial_weights(experiment.model, data.spec, experiment.seed))
    strategy = build_strategy(experiment)
    replies = list(
        grid.send_and_receive(strategy.configure_train(1, initial, ConfigRecord(), grid))
    )
    strategy.aggregate_train(1, replies)
    if isinstance(strategy, LocalOnly):
        return {client: to_weights(record) for client, record in strategy.local_arrays.items()}
    records = {reply.metadata.src_node_id: reply.content.array_records for reply in replies}
    return {client: to_weights(record["arrays"]) for client, record in records.items()}


def test_first_round_is_the_first_round_of_fedavg() -> None:
    alone, federated = _first_round(LocalOnly()), _first_round(FedAvg())
    assert list(alone) == list(federated) == [0, 1, 2]
    assert all(same_weights(alone[client], federated[client]) for client in alone)
    assert not same_weights(alone[0], alone[1])
