from __future__ import annotations

import pytest
from flwr.app import ConfigRecord, Message
from flwr.serverapp.strategy import FedAvg
from support.helpers import arrays, evaluated, scripted_app, trained, values

from fedexp.backends.inline import InlineGrid
from fedexp.config.schema import Config
from fedexp.flower.strategies import build_strategy
from fedexp.strategies.fedavg import FedAvg
from fedexp.strategies.local_only import LocalOnly

REPLIES = [
    trained(1.0, -2.0, num_examples=10, loss=2.0),
    trained(4.0, 6.0, num_examples=30, loss=1.0),
    trained(0.0, 8.0, num_examples=40, loss=0.25),
]


def _grid(num_clients: int) -> InlineGrid:
    grid = InlineGrid(scripted_app(lambda client, _: REPLIES[client]), num_clients)
    grid.cohort = list(range(num_clients))
    return grid


def _replies(strategy: FedAvg, grid: InlineGrid) -> list[Message]:
    messages = strategy.configure_train(1, arrays(0.0, 0.0), ConfigRecord(), grid)
    return list(grid.send_and_receive(messages))


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
    strategy = build_strategy(Config(strategy=FedAvg()))
    assert isinstance(strategy, FedAvg)
    record, metrics = strategy.aggregate_train(1, _replies(strategy, _grid(num_clients)))
    assert record is not None
    assert metrics is not None
    assert values(record) == expected
    assert dict(metrics) == {"train_loss": loss}


def test_fedavg_weighs_evaluations_by_examples() -> None:
    answers = [evaluated(1, 4.0, 1.0), evaluated(3, 2.0, 0.5)]
    app = scripted_app(lambda client, _: REPLIES[client], lambda client, _: answers[client])
    grid = InlineGrid(app, 2)
    grid.cohort = [0, 1]
    strategy = build_strategy(Config(strategy=FedAvg()))
    messages = strategy.configure_evaluate(1, arrays(0.0), ConfigRecord(), grid)
    mean = strategy.aggregate_evaluate(1, grid.send_and_receive(messages))
    assert mean is not None
    assert dict(mean) == {"loss": 2.5, "accuracy": 0.625}  # (4 + 3*2) / 4, (1 + 3*0.5) / 4


@pytest.mark.parametrize("kind", [FedAvg, LocalOnly])
def test_one_client_alone_is_not_kept_waiting(
    kind: type[FedAvg], monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait(_: float) -> None:
        raise AssertionError("Flower waits for a second client that does not exist")

    monkeypatch.setattr("flwr.serverapp.strategy.strategy_utils.sleep", wait)
    grid, strategy = _grid(1), build_strategy(Config(strategy=kind()))
    for configure in (strategy.configure_train, strategy.configure_evaluate):
        messages = list(configure(1, arrays(0.0), ConfigRecord(), grid))
        assert [message.metadata.dst_node_id for message in messages] == [0]


def test_strategies_send_to_the_whole_cohort_and_name_the_round() -> None:
    for kind in (FedAvg(), LocalOnly()):
        grid, strategy = _grid(3), build_strategy(Config(strategy=kind))
        grid.cohort = [0, 2]
        messages = list(strategy.configure_train(5, arrays(1.0), ConfigRecord(), grid))
        assert sorted(message.metadata.dst_node_id for message in messages) == [0, 2]
        for message in messages:
            assert message.content["config"] == ConfigRecord({"server-round": 5})
            assert values(message.content["arrays"]) == [1.0]


def test_strategies_by_name() -> None:
    assert type(build_strategy(Config(strategy=FedAvg()))) is FedAvg
    assert type(build_strategy(Config(strategy=LocalOnly()))) is LocalOnly
