from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fedexp.datasets.options import Augmentation, CifarDataset
from fedexp.federation.behaviour import byzantine_clients
from fedexp.models.networks import build_model, initial_weights
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MetricRecord,
    RecordDict,
)
from support.helpers import config, instruction, same_weights, tiny_data

from fedexp.backends.inline import InlineGrid
from fedexp.config.clients import ByzantineConfig, ClientsConfig
from fedexp.config.schema import Config
from fedexp.config.training import TrainingConfig
from fedexp.core.seeding import derive_seed
from fedexp.core.weights import Weights
from fedexp.data.examples import Examples
from fedexp.data.federated import FederatedData
from fedexp.federation.client import build_client_app
from fedexp.flower.messages import to_record, to_weights, weights_in
from fedexp.flower.strategies import build_strategy
from fedexp.models.mlp import Mlp
from fedexp.strategies.centralized import Centralized
from fedexp.training.device import limited_threads, pick_device
from fedexp.training.loop import TrainResult, Work, num_steps, train
from fedexp.training.network import get_weights, set_weights


def _call(
    client: int,
    weights: Weights,
    data: FederatedData,
    *,
    server_round: int = 1,
    kind: str = "train",
    experiment: Config | None = None,
) -> RecordDict:
    grid = InlineGrid(build_client_app(experiment or config(), lambda: data), 3)
    message = instruction(client, server_round, to_record(weights), kind)
    (reply,) = grid.send_and_receive([message])
    assert not reply.has_error(), reply.error
    return reply.content


def _initial() -> Weights:
    return initial_weights(config().model, config().dataset.spec, 0)


def _sent(content: RecordDict) -> Weights:
    return to_weights(content.array_records["arrays"])


def test_training_is_the_training_loop_on_the_clients_own_images() -> None:
    data = tiny_data()
    content = _call(1, _initial(), data, server_round=3)
    model = build_model(config().model, data.spec)
    set_weights(model.state_dict(), _initial())
    own = data.train.subset(np.arange(4, 12))  # client 1's 8 images follow client 0's 4
    seed = derive_seed(0, "train", 3, 1)
    with limited_threads(1):
        work = Work(num_steps(config().training, 8), config().training.learning_rate)
        result = train(
            model, own, data.spec, config().training, work, seed, pick_device(config().backend)
        )
    assert same_weights(_sent(content), get_weights(model.state_dict()))
    assert dict(content.metric_records["metrics"]) == {"num-examples": 8, "train_loss": result.loss}


def test_a_reply_depends_on_round_and_client_and_on_nothing_else() -> None:
    data = tiny_data()
    first = _sent(_call(2, _initial(), data))
    _call(0, _initial(), data)  # what ran in between must not matter
    assert same_weights(first, _sent(_call(2, _initial(), data)))
    assert not same_weights(first, _sent(_call(2, _initial(), data, server_round=2)))


def test_evaluation_of_zero_weights_is_the_share_of_label_0() -> None:
    data = tiny_data()
    zeros = {name: np.zeros_like(array) for name, array in _initial().items()}
    content = _call(1, zeros, data, kind="evaluate")
    labels = data.test.labels[3:8]  # client 1's 5 test images follow client 0's 3
    metrics = content.metric_records["metrics"]
    assert metrics["num-examples"] == 5
    # All logits are equal: the loss of every image is ln 10 and the first label is predicted.
    assert metrics["loss"] == pytest.approx(math.log(10), abs=1e-6)
    assert metrics["accuracy"] == (labels == 0).mean()


def test_evaluation_on_no_image_has_no_weight() -> None:
    content = _call(1, _initial(), tiny_data(test_sizes=(4, 0, 6)), kind="evaluate")
    expected: dict[str, Any] = {"num-examples": 0, "loss": 0.0, "accuracy": 0.0}
    assert content.metric_records["metrics"] == MetricRecord(expected)


def test_every_node_says_which_partition_it_holds() -> None:
    app = build_client_app(config(), tiny_data)
    InlineGrid(app, 3)  # sets who this process is
    message = Message(RecordDict(), dst_node_id=987654321, message_type="query")
    answer = app(message, Context(1, 987654321, {"partition-id": 2}, RecordDict(), {}))
    assert answer.content.config_records["config"] == {"partition-id": 2}


def test_two_models_in_one_process_do_not_share_a_module() -> None:
    data, wide = tiny_data(), config(model=Mlp(hidden=[5]))
    weights = initial_weights(wide.model, data.spec, 0)
    before = _sent(_call(0, _initial(), data))
    assert _sent(_call(0, weights, data, experiment=wide))["1.weight"].shape == (5, 784)
    assert same_weights(before, _sent(_call(0, _initial(), data)))


@pytest.mark.parametrize(
    "array",
    [
        np.array([1.5, -2.0], dtype=np.float32),
        np.arange(6, dtype=np.float64).reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
        np.arange(12, dtype=np.float32).reshape(3, 4)[:, ::2],
        np.array(7, dtype=np.int64),
        np.zeros((0, 3), dtype=np.float32),
        np.array([True, False]),
        np.array([1.0, 2.0], dtype=">f4"),
    ],
    ids=["vector", "matrix", "fortran", "strided", "scalar", "empty", "bool", "big-endian"],
)
def test_weights_survive_a_message_bit_for_bit(array: np.ndarray) -> None:
    (found,) = to_weights(to_record({"w": array})).values()
    assert found.dtype == array.dtype
    assert found.shape == array.shape
    np.testing.assert_array_equal(found, array)


def test_weights_keep_the_models_order() -> None:
    weights = {name: np.zeros(1, dtype=np.float32) for name in ("b", "a", "10", "9")}
    assert list(to_weights(to_record(weights))) == ["b", "a", "10", "9"]
    assert list(to_weights(ArrayRecord({"z": Array(np.ones(2))}))) == ["z"]


def test_centralized_trains_on_the_unions_images_for_as_long_as_its_clients_would(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, seen = tiny_data(), list[tuple[int, int]]()

    def watch(model: Any, examples: Any, spec: Any, training: Any, work: Work, *rest: Any) -> Any:
        seen.append((len(examples.labels), work.steps))
        return train(model, examples, spec, training, work, *rest)

    monkeypatch.setattr("fedexp.federation.client.train", watch)
    for training in (
        TrainingConfig(local_epochs=2, batch_size=4),
        TrainingConfig(local_steps=5, batch_size=4),
    ):
        grid = InlineGrid(build_client_app(config(training=training), lambda: data), 3)
        grid.cohort = [0, 2]
        strategy = build_strategy(config(strategy=Centralized()))
        messages = strategy.configure_train(1, to_record(_initial()), ConfigRecord(), grid)
        (reply,) = grid.send_and_receive(messages)
        assert not reply.has_error(), reply.error
    # Clients 0 and 2 hold 4 + 6 images: two epochs of three batches, or five steps for each of them.
    assert seen == [(10, 6), (10, 10)]


def _changed(clients: ClientsConfig, **training: Any) -> Config:
    return config(clients=clients, training=replace(config().training, **training))


def _reply_of(experiment: Config, client: int, data: FederatedData, **instructions: Any) -> Message:
    grid = InlineGrid(build_client_app(experiment, lambda: data), 3)
    message = instruction(client, 1, to_record(_initial()))
    message.content["config"] = ConfigRecord({"server-round": 1, **instructions})
    (reply,) = grid.send_and_receive([message])
    return reply


def test_faulty_clients_and_no_others_send_what_they_should_not() -> None:
    data, before = tiny_data(), _initial()
    honest = [_sent(_call(client, before, data)) for client in range(3)]
    flipped_data = replace(data, train=Examples(data.train.images, 9 - data.train.labels))
    for kind in ("label_flip", "sign_flip"):
        faults = ByzantineConfig(fraction=0.34, kind=kind, scale=2.0)
        experiment = _changed(ClientsConfig(num=3, byzantine=faults))
        (faulty,) = byzantine_clients(experiment)
        for client in range(3):
            found = _sent(_call(client, before, data, experiment=experiment))
            if client != faulty:
                assert same_weights(found, honest[client])
            elif kind == "label_flip":
                assert same_weights(found, _sent(_call(client, before, flipped_data)))
            else:
                for name, start in before.items():
                    wanted = start - 2 * (honest[client][name] - start)
                    np.testing.assert_allclose(found[name], wanted, atol=1e-6)


def test_a_client_that_drops_out_says_so_and_the_upper_reference_never_does() -> None:
    data = tiny_data()
    faults = ByzantineConfig(fraction=0.9, kind="label_flip")
    troubled = ClientsConfig(num=3, dropout=0.999, stragglers=1.0, byzantine=faults)
    experiment = _changed(troubled, local_epochs=4)
    reply = _reply_of(experiment, 1, data)
    assert reply.has_error()
    assert reply.error.reason == "DroppedOutError: clients.dropout=0.999"
    union, sound = (
        _sent(_reply_of(e, 0, data, **{"partition-ids": [0, 1, 2]}).content)
        for e in (experiment, _changed(ClientsConfig(num=3), local_epochs=4))
    )
    assert same_weights(union, sound)


def test_a_straggler_trains_for_fewer_epochs() -> None:
    late = _changed(ClientsConfig(num=3, stragglers=1.0), local_epochs=2)
    found = _sent(_reply_of(late, 1, tiny_data()).content)
    assert same_weights(found, _sent(_call(1, _initial(), tiny_data())))  # for one, of two


def test_the_rate_of_a_round_is_what_it_has_decayed_to() -> None:
    data = tiny_data()
    decayed = _changed(ClientsConfig(num=3), learning_rate=0.08, learning_rate_decay=0.5)
    plain = _changed(ClientsConfig(num=3), learning_rate=0.02)
    found, wanted = (
        _call(1, _initial(), data, server_round=3, experiment=e) for e in (decayed, plain)
    )
    assert same_weights(_sent(found), _sent(wanted))


def test_the_loss_of_the_incoming_model_is_taken_before_training() -> None:
    data = tiny_data()
    zeros = {name: np.zeros_like(array) for name, array in _initial().items()}
    experiment = _changed(ClientsConfig(num=3), local_epochs=30)
    grid = InlineGrid(build_client_app(experiment, lambda: data), 3)
    message = instruction(1, 1, to_record(zeros))
    message.content["config"] = ConfigRecord({"server-round": 1, "global-loss": True})
    (reply,) = grid.send_and_receive([message])
    metrics = reply.content.metric_records["metrics"]
    assert metrics["global-loss"] == pytest.approx(math.log(10), abs=1e-6)
    assert float(str(metrics["train_loss"])) < 1


def test_with_momentum_a_control_variate_divides_by_the_gradient_mass() -> None:
    data, before = tiny_data(), _initial()
    experiment = _changed(ClientsConfig(num=3), momentum=0.9, learning_rate=0.1)
    grid = InlineGrid(build_client_app(experiment, lambda: data), 3)
    message = instruction(1, 1, to_record(before))
    message.content["control"] = to_record({n: np.zeros_like(a) for n, a in before.items()})
    (reply,) = grid.send_and_receive([message])
    after, change = _sent(reply.content), weights_in(reply.content, "control")
    # Two steps of four images: the first gradient counts 1.9 times, the second once.
    for name, start in before.items():
        np.testing.assert_allclose(change[name], (start - after[name]) / (0.1 * 2.9), rtol=1e-4)


@pytest.mark.parametrize("wanted", [True, False])
def test_photographs_are_augmented_where_they_are_trained_on(
    wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def watch(*args: Any) -> TrainResult:
        seen.append(args[-1])
        return TrainResult(1, 0.0)

    monkeypatch.setattr("fedexp.federation.client.train", watch)
    experiment = config(dataset=CifarDataset(augment=wanted))
    weights = initial_weights(experiment.model, experiment.dataset.spec, 0)
    _call(0, weights, tiny_data(), experiment=experiment)
    assert seen == [Augmentation(padding=4, flip=True) if wanted else None]
