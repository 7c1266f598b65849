"""SCAFFOLD's control variates, by hand and against its paper's algorithm written in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from support.helpers import (
    Clients,
    ScriptedJob,
    config,
    initial_weights,
    sent,
    setup,
    tiny_data,
    values,
    weights_of,
)

from fedexp.config.training import TrainingConfig
from fedexp.core.roles import Order, Updates
from fedexp.core.weights import Weights
from fedexp.data.federated import FederatedData
from fedexp.models.logistic import Logistic
from fedexp.strategies.scaffold import Scaffold, ScaffoldClient, ScaffoldServer

Floats = npt.NDArray[np.float64]
COHORTS = [[0, 1], [1, 2], [0, 2], [0, 1, 2]]
RATE, STEPS = 0.05, 3


def _run_client(state: dict[str, Any], **how: Any) -> tuple[ScriptedJob, Weights]:
    """Let a client that is sent (4, 4) and control (1, -2) train to (3, 6); return what it sends."""
    order = Order(weights_of(4.0, 4.0), arrays={"control": weights_of(1.0, -2.0)})
    job = ScriptedJob(order, weights_of(3.0, 6.0), state=state, **how)
    ScaffoldClient().run(job)
    ((weights, arrays, numbers),) = job.sent
    assert values(weights) == [3.0, 6.0]
    assert list(arrays) == ["control"]
    assert numbers == {}
    return job, arrays["control"]


def test_a_clients_control_variate_by_hand() -> None:
    job, change = _run_client({"control": weights_of(0.5, 3.0)}, learning_rate=0.25, steps=2)
    (asked,) = job.asked
    # c - c_i, from the model that was sent
    assert values(asked["correction"]) == [0.5, -5.0]
    assert asked["start"] is None
    # (x - y) / (2 steps of 0.25) - c = (2, -4) - (1, -2), and c_i gains it.
    assert values(change) == [1.0, -2.0]
    assert values(job.state["control"]) == [1.5, 1.0]


def test_a_clients_first_control_variate_is_zero() -> None:
    job, change = _run_client({}, learning_rate=0.5)
    assert values(job.asked[0]["correction"]) == [1.0, -2.0]
    assert values(change) == values(job.state["control"]) == [1.0, -2.0]


def test_with_momentum_steps_count_by_their_gradient_mass() -> None:
    # Of two steps with momentum 0.5 the first gradient counts 1.5 times: 0.2 * 2.5 = 0.5.
    _, change = _run_client({}, learning_rate=0.2, steps=2, momentum=0.5)
    assert values(change) == pytest.approx([1.0, -2.0])


def test_the_servers_control_variate_is_the_clients_weighted_mean_whoever_takes_part() -> None:
    examples, own = [10, 30, 60], np.zeros(3)
    server, model, seen = Scaffold().server(setup(3)), weights_of(0.0), []
    assert isinstance(server, ScaffoldServer)
    for server_round, cohort in enumerate(COHORTS, start=1):
        updates = []
        for client in server.instruct(server_round, model, cohort):
            change = (client + 1.0) * (1 + abs(own[client]))
            own[client] += change
            arrays = {"control": weights_of(change)}
            updates.append(sent(client, 0.0, num_examples=examples[client], arrays=arrays))
        server.combine(server_round, model, Updates(updates))
        seen.append((values(server.control)[0], np.average(own, weights=examples)))
    # Round 1: changes 1 and 2; the third client, not met yet, counts as 0 with (10 + 30) / 2 examples.
    assert seen[0][0] == pytest.approx((10 * 1 + 30 * 2) / (10 + 30 + 20))
    for found, mean in seen[1:]:
        assert found == pytest.approx(mean)


def test_clients_are_sent_the_control_variate_of_the_round_before() -> None:
    server, model = Scaffold().server(setup(1)), weights_of(0.0)
    first = server.instruct(1, model, [0])[0]
    arrays = {"control": weights_of(3.0)}
    server.combine(1, model, Updates([sent(0, 0.0, num_examples=5, arrays=arrays)]))
    second = server.instruct(2, model, [0])[0]
    # What was sent is left as it was: on some backends clients may still hold it.
    assert [values(order.arrays["control"]) for order in (first, second)] == [[0.0], [3.0]]


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
            pixels = examples.inputs.reshape(len(examples), -1) / 255
            inputs = np.hstack([(pixels - 0.5) / 0.5, np.ones((len(pixels), 1))])
            y = weights.copy()
            for _ in range(STEPS):
                y -= RATE * (_gradient(y, inputs, examples.targets) + control - own[client])
            fresh[client] = own[client] - control + (weights - y) / (STEPS * RATE)
            moved += counts[client] / counts[cohort].sum() * (y - weights)
        weights, own = weights + moved, fresh
        # In round 1 the images of client 2, 6, are guessed from those of the others, 4 and 8.
        control = np.tensordot(counts, own, 1) / counts.sum()
    return weights, control


def test_rounds_of_some_clients_are_the_papers_algorithm() -> None:
    data = tiny_data()
    training = TrainingConfig(STEPS, None, "full", learning_rate=RATE, momentum=0)
    experiment = config(model=Logistic(), training=training, strategy=Scaffold())
    clients, model = Clients(experiment, data), initial_weights(experiment)
    server = Scaffold().server(setup(3, list(model)))
    assert isinstance(server, ScaffoldServer)

    def together(weights: Weights) -> Floats:
        return np.column_stack([weights["1.weight"], weights["1.bias"]]).astype(np.float64)

    wanted, control = _algorithm_1(data, together(model))
    for server_round, cohort in enumerate(COHORTS, start=1):
        updates = clients.train(server_round, server.instruct(server_round, model, cohort))
        assert [update.client for update in updates] == cohort
        assert all(list(u.arrays["control"]) == ["1.weight", "1.bias"] for u in updates)
        model = server.combine(server_round, model, updates)
        assert all(array.dtype == np.float32 for array in model.values())
    assert together(model) == pytest.approx(wanted, abs=1e-5)
    assert together(server.control) == pytest.approx(control, abs=1e-5)
