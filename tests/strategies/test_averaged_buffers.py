"""BatchNorm's buffers are averaged, whatever the server optimizer does to parameters."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from support.helpers import config

from fedexp.backends.inline import InlineGrid
from fedexp.core.weights import Weights, restore_dtypes
from fedexp.flower.messages import to_record, to_weights
from fedexp.flower.strategies import build_strategy
from fedexp.strategies import Strategy
from fedexp.strategies.fedadagrad import FedAdagrad
from fedexp.strategies.fedadam import FedAdam
from fedexp.strategies.fedavg import FedAvg
from fedexp.strategies.fedavgm import FedAvgM
from fedexp.strategies.fednova import FedNova
from fedexp.strategies.fedyogi import FedYogi
from fedexp.strategies.qfedavg import QFedAvg
from fedexp.strategies.scaffold import Scaffold

START: Weights = {
    "w": np.array([1.0], np.float32),
    "running_var": np.array([2.0], np.float32),
    "num_batches_tracked": np.array(10),
}


def _sent(client: int) -> Weights:
    return {
        "w": np.array([3.0 - 4 * client], np.float32),
        "running_var": np.array([4.0 * client], np.float32),
        "num_batches_tracked": np.array(13 + 6 * client),
    }


def _aggregate(strategy_config: Strategy) -> Weights:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        client = int(context.node_config["partition-id"])
        assert list(message.content.array_records["arrays"]) == list(START)  # clients get it all
        numbers = {"num-examples": 10 + 20 * client, "train_loss": 0.5}
        metrics = MetricRecord({**numbers, "global-loss": 1.0 + client, "gradient-mass": 1.0})
        content = RecordDict({"arrays": to_record(_sent(client)), "metrics": metrics})
        if "control" in message.content:
            assert list(message.content.array_records["control"]) == ["w"]
            content["control"] = to_record({"w": np.zeros(1, np.float32)})
        return Message(content, reply_to=message)

    grid = InlineGrid(app, 2)
    grid.cohort = [0, 1]
    strategy = build_strategy(
        config(strategy=strategy_config), ["running_var", "num_batches_tracked"]
    )
    messages = list(strategy.configure_train(1, to_record(START), ConfigRecord(), grid))
    record, _ = strategy.aggregate_train(1, grid.send_and_receive(messages))
    assert record is not None
    return restore_dtypes(to_weights(record), START)


@pytest.mark.parametrize(
    "chosen",
    [
        FedAvg(),
        FedAvgM(),
        FedAdagrad(),
        FedAdam(),
        FedYogi(),
        QFedAvg(q=1.0),
        Scaffold(server_learning_rate=0.5),
        FedNova(),
    ],
    ids=lambda chosen: chosen.name,
)
def test_buffers_are_the_mean_weighted_by_examples(chosen: Strategy) -> None:
    found = _aggregate(chosen)
    assert list(found) == list(START)
    assert {name: array.dtype for name, array in found.items()} == {
        name: array.dtype for name, array in START.items()
    }
    assert all(isinstance(array, np.ndarray) for array in found.values())
    assert found["running_var"].tolist() == [3.0]  # (10 * 0 + 30 * 4) / 40
    assert found["num_batches_tracked"] == 18  # (10 * 13 + 30 * 19) / 40 = 17.5, rounded to even
    assert found["w"].tolist() != START["w"].tolist()
