"""SCAFFOLD's control variates, by hand and against its paper's algorithm written in NumPy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from fedexp.models.networks import initial_weights
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from support.helpers import arrays, config, tiny_data, values
from torch import nn

from fedexp.backends.inline import InlineGrid
from fedexp.config.training import TrainingConfig
from fedexp.data.federated import FederatedData
from fedexp.federation.client import build_client_app
from fedexp.flower.messages import to_record, to_weights, weights_in
from fedexp.models.logistic import Logistic
from fedexp.strategies.scaffold import ClientControl, Scaffold

Floats = npt.NDArray[np.float64]
COHORTS = [[0, 1], [1, 2], [0, 2], [0, 1, 2]]
RATE, STEPS = 0.05, 3


class One(nn.Module):
    """A network of two weights."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2))


def test_a_clients_control_variate_by_hand() -> None:
    InlineGrid(ClientApp(), 1)  # sets who this process is
    content = RecordDict({"control": arrays(1.0, -2.0)})
    message = Message(content, dst_node_id=0, message_type="train")
    context = Context(1, 0, {}, RecordDict(), {})
    context.state["control"] = arrays(0.5, 3.0)
    control = ClientControl(message, context, One())
    # c - c_i
    assert [t.tolist() for t in control.correction(torch.device("cpu"))] == [[0.5, -5.0]]
    before, after = ({"w": np.array(w, np.float32)} for w in ([4.0, 4.0], [3.0, 6.0]))
    change = control.renew(before, after, scale=0.5)
    # (x - y) / scale - c = (2, -4) - (1, -2), and c_i gains it.
    assert values(change) == [1.0, -2.0]
    assert values(context.state["control"]) == [1.5, 1.0]


def test_the_servers_control_variate_is_the_clients_weighted_mean_whoever_takes_part() -> None:
    examples, own = [10, 30, 60], np.zeros((3, 1))
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        client = int(context.node_config["partition-id"])
        change = (client + 1.0) * (1 + abs(own[client, 0]))
        own[client] += change
        metrics = MetricRecord({"num-examples": examples[client]})
        content = RecordDict({"arrays": arrays(0.0), "metrics": metrics})
        content["control"] = arrays(change)
        return Message(content, reply_to=message)

    grid, strategy, seen = InlineGrid(app, 3), Scaffold(3, 1.0, min_train_nodes=1), []
    strategy.min_available_nodes = 1
    for server_round, grid.cohort in enumerate(COHORTS, start=1):
        messages = list(strategy.configure_train(server_round, arrays(0.0), ConfigRecord(), grid))
        strategy.aggregate_train(server_round, grid.send_and_receive(messages))
        assert strategy.control is not None
        seen.append((strategy.control["w"][0], np.average(own[:, 0], weights=examples)))
    # Round 1: changes 1 and 2; the third client, not met yet, counts as 0 with (10 + 30) / 2 examples.
    assert seen[0][0] == pytest.approx((10 * 1 + 30 * 2) / (10 + 30 + 20))
    for found, mean in seen[1:]:
        assert found == pytest.approx(mean)


def _gradient(weights: Floats, inputs: Floats, labels: npt.NDArray[np.int64]) -> Floats:
    """Return that of the mean cross-entropy of softmax regression; the bias is the last column."""
    logits = inputs @ weights.T
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    wrong = odds / odds.sum(axis=1, keepdims=True) - np.eye(10)[labels]
    return np.asarray(wrong.T @ inputs / len(labels))


def _algorithm_1(data: FederatedData, weights: Floats) -> tuple[Floats, Floats]:
    """Run the paper's algorithm 1, option II, clients weighted by examples; return x and c."""
    own, counts = np.zeros((3, *weights.shape)), data.partition.sizes
    control = np.zeros_like(weights)
    for cohort in COHORTS:
        moved = np.zeros_like(weights)
        fresh = own.copy()
        for client in cohort:
            examples = data.train_examples([client])
            pixels = examples.images.reshape(len(examples.labels), -1) / 255
            inputs = np.hstack([(pixels - 0.5) / 0.5, np.ones((len(pixels), 1))])
            y = weights.copy()
            for _ in range(STEPS):
                y -= RATE * (_gradient(y, inputs, examples.labels) + control - own[client])
            fresh[client] = own[client] - control + (weights - y) / (STEPS * RATE)
            moved += counts[client] / counts[cohort].sum() * (y - weights)
        weights, own = weights + moved, fresh
        # In round 1 the images of client 2, 6, are guessed from those of the others, 4 and 8.
        control = np.tensordot(counts, own, 1) / counts.sum()
    return weights, control


def test_rounds_of_some_clients_are_the_papers_algorithm() -> None:
    data, training = (
        tiny_data(),
        TrainingConfig(STEPS, None, "full", learning_rate=RATE, momentum=0),
    )
    experiment = config(model=Logistic(), training=training, strategy=Scaffold())
    record = to_record(initial_weights(experiment.model, data.spec, 0))
    grid = InlineGrid(build_client_app(experiment, lambda: data), 3)
    strategy = Scaffold(3, 1.0, min_train_nodes=1, min_available_nodes=1)

    def together(weights: dict[str, npt.NDArray[np.float32]]) -> Floats:
        return np.column_stack([weights["1.weight"], weights["1.bias"]]).astype(np.float64)

    wanted, control = _algorithm_1(data, together(to_weights(record)))
    for server_round, grid.cohort in enumerate(COHORTS, start=1):
        messages = list(strategy.configure_train(server_round, record, ConfigRecord(), grid))
        replies = list(grid.send_and_receive(messages))
        assert all("control" in reply.content for reply in replies)
        assert list(weights_in(replies[0].content, "control")) == ["1.weight", "1.bias"]
        result, _ = strategy.aggregate_train(server_round, replies)
        assert result is not None
        record = to_record(to_weights(result))
    assert together(to_weights(record)) == pytest.approx(wanted, abs=1e-5)
    assert strategy.control is not None
    assert together(strategy.control) == pytest.approx(control, abs=1e-5)
