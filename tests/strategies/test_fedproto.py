"""FedProto: prototypes travel and weights do not; the paper's algorithm written in NumPy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from support.helpers import (
    Clients,
    config,
    forget_datasets,
    initial_weights,
    leave_out_the_rest,
    setup,
    tiny_data,
)
from support.transcribed import Floats, Holder, Net, holders
from torch import Tensor, nn

from fedexp.config.clients import ByzantineConfig, ClientsConfig
from fedexp.config.schema import Config
from fedexp.config.training import TrainingConfig
from fedexp.config.validation import validate
from fedexp.core.hooks import Seen
from fedexp.core.options import FedexpError
from fedexp.core.roles import Order, Update, Updates
from fedexp.core.weights import Weights
from fedexp.data.examples import Spec
from fedexp.federation.events import Ending
from fedexp.models import Model
from fedexp.models.gru import Gru
from fedexp.models.logistic import Logistic
from fedexp.models.mlp import Mlp
from fedexp.partitions.dirichlet import Dirichlet
from fedexp.strategies import Strategy
from fedexp.strategies.fedproto import FedProto, FedProtoServer, drawn_to, prototypes_of
from fedexp.strategies.local_only import LocalOnly
from fedexp.testing.runs import run, small
from fedexp.testing.tiny import TinyNumbers, TinyText

RATE, STEPS, ROUNDS = 0.05, 4, 3


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_out_the_rest(monkeypatch)
    forget_datasets(monkeypatch)


# Identity


def _own(ending: Ending, client: int) -> Weights:
    assert ending.weights is not None
    prefix = f"{client}/"
    found = ending.weights.items()
    return {name.removeprefix(prefix): a for name, a in found if name.startswith(prefix)}


@dataclass(frozen=True)
class Normed(Model):
    """A hidden layer with BatchNorm, whose statistics must stay with the client, too."""

    has_buffers = True

    name: str = "normed"

    def build(self, spec: Spec) -> nn.Module:
        inputs = int(np.prod(spec.shape))
        hidden = nn.Sequential(nn.Flatten(), nn.Linear(inputs, 6), nn.BatchNorm1d(6), nn.ReLU())
        return nn.Sequential(hidden, nn.Linear(6, spec.num_classes))


def test_with_lam_0_it_is_isolated_training() -> None:
    def end(strategy: Strategy, fraction: float) -> Ending:
        clients = ClientsConfig(num=4, fraction_train=fraction)
        training = TrainingConfig(local_steps=3, batch_size=8, momentum=0.9)
        return run(
            small(
                strategy=strategy, model=Normed(), clients=clients, training=training, rounds=ROUNDS
            )
        )[0]

    found, isolated = end(FedProto(lam=0.0), 1.0), end(LocalOnly(), 1.0)
    assert found.summary["model_sha256"] == isolated.summary["model_sha256"]
    drawn = end(FedProto(), 1.0)
    assert drawn.summary["model_sha256"] != isolated.summary["model_sha256"]
    # Of a part of the clients, those that have trained have the same models.
    some, alone = end(FedProto(lam=0.0), 0.5), end(LocalOnly(), 0.5)
    trained = [k for k in range(4) if _own(alone, k)]
    assert trained
    for client in trained:
        own = _own(some, client)
        assert all(np.array_equal(a, own[name]) for name, a in _own(alone, client).items())


# The paper's algorithm


def _means(client: Holder, net: Net) -> dict[int, Floats]:
    hidden = client.features(net)
    return {k: hidden[client.labels == k].mean(axis=0) for k in set(client.labels.tolist())}


def _pull(client: Holder, net: Net, known: dict[int, Floats], lam: float) -> Floats:
    """Return the gradient of lam times the mean square by the features of every example."""
    hidden = client.features(net)
    aims = [
        known.get(label, own) for label, own in zip(client.labels.tolist(), hidden, strict=True)
    ]
    return np.asarray(lam * 2 * (hidden - np.stack(aims)) / hidden.size)


def _fedproto(clients: list[Holder], net: Net, lam: float) -> tuple[list[Net], dict[int, Floats]]:
    own, known = [dict(net) for _ in clients], dict[int, Floats]()
    for _ in range(ROUNDS):
        for k, c in enumerate(clients):
            for _ in range(STEPS):
                slope = c.gradient(own[k], on_features=_pull(c, own[k], known, lam))
                own[k] = {n: w - RATE * slope[n] for n, w in own[k].items()}
        for label in {label for c in clients for label in c.labels.tolist()}:
            held = [(c, _means(c, own[k])) for k, c in enumerate(clients) if label in c.labels]
            counts = np.array([(c.labels == label).sum() for c, _ in held])
            vectors = np.stack([means[label] for _, means in held])
            known[label] = (counts[:, None] * vectors).sum(axis=0) / counts.sum()
    return own, known


def _plain(strategy: Strategy, **changes: Any) -> Config:
    """Return an experiment that takes gradient steps on all of a client's examples."""
    plain: dict[str, Any] = {
        "training": TrainingConfig(
            local_steps=STEPS, batch_size="full", learning_rate=RATE, momentum=0
        ),
        "partition": Dirichlet(alpha=0.3),
        "model": Mlp(hidden=[6]),
        "rounds": ROUNDS,
        "clients": ClientsConfig(num=3),
    }
    return small(strategy=strategy, **{**plain, **changes})


def test_rounds_are_the_papers_algorithm() -> None:
    experiment = _plain(FedProto(lam=3.0))
    ending = run(experiment)[0]
    start = {n: a.astype(np.float64) for n, a in initial_weights(experiment).items()}
    clients = holders(experiment)
    labels = [set(c.labels.tolist()) for c in clients]
    assert any(one != other for one in labels for other in labels)
    wanted, _ = _fedproto(clients, start, 3.0)
    isolated, _ = _fedproto(clients, start, 0.0)
    for client in range(3):
        own = _own(ending, client)
        assert list(own) == list(start)
        for name, array in own.items():
            np.testing.assert_allclose(array, wanted[client][name], atol=2e-5, err_msg=name)
    changes = [np.abs(wanted[k]["1.weight"] - isolated[k]["1.weight"]).max() for k in range(3)]
    assert min(changes) > 1e-3


def test_the_loss_by_hand() -> None:
    aims = {"0": np.array([0, 0], np.float32), "2": np.array([1, 1], np.float32)}
    # The squares of three examples are 9 + 16, 0 + 4 and 0 + 4; label 1 has no prototype.
    features = torch.tensor([[3.0, 4], [0, 2], [9, 9], [1, 3]], requires_grad=True)
    outputs, targets = torch.zeros(4, 3), torch.tensor([0, 0, 1, 2])
    loss = drawn_to(aims, 0.5).of(Seen(outputs, features), targets, ())
    assert loss.item() == pytest.approx(np.log(3) + 0.5 * (25 + 4 + 4) / 8)
    (slope,) = torch.autograd.grad(loss, features)
    assert slope.tolist() == [[0.375, 0.5], [0, 0.25], [0, 0], [0, 0.25]]


def test_prototypes_by_hand() -> None:
    features = np.array([[1, 2], [3, 4], [5, 0], [7, 8]], np.float32)
    means, counts = prototypes_of(features, np.array([4, 0, 4, 4]))
    assert {label: mean.tolist() for label, mean in means.items()} == {
        "0": [3.0, 4.0],
        "4": [pytest.approx(13 / 3), pytest.approx(10 / 3)],
    }
    assert {label: int(count) for label, count in counts.items()} == {"0": 1, "4": 3}
    assert {mean.dtype for mean in means.values()} == {np.dtype(np.float32)}


# The server


def _server(width: int = 2, num_classes: int = 3) -> FedProtoServer:
    server = FedProto().server(replace(setup(), width=width, num_classes=num_classes))
    assert isinstance(server, FedProtoServer)
    return server


def _sent(client: int, held: dict[str, tuple[list[float], int]], **changes: Any) -> Update:
    means: Weights = {label: np.array(mean, np.float32) for label, (mean, _) in held.items()}
    counts: Weights = {label: np.array(count) for label, (_, count) in held.items()}
    arrays = {"prototypes": means, "counts": counts, **changes}
    total = sum(count for _, count in held.values())
    return Update(client, 1, {}, total, 0.5, arrays)


def test_means_are_weighted_by_examples_and_stay_where_nobody_has_the_label() -> None:
    server, model = _server(), {"w": np.zeros(1, np.float32)}
    assert server.instruct(1, model, [0, 1])[0].arrays == {}
    first = [_sent(0, {"2": ([1, 1], 1), "0": ([0, 2], 4)}), _sent(1, {"2": ([5, 9], 3)})]
    assert server.combine(1, model, Updates(first)) is model

    def known() -> dict[str, list[float]]:
        order = server.instruct(2, model, [0, 1])[1]
        assert order.weights is model
        return {label: a.tolist() for label, a in order.arrays["prototypes"].items()}

    assert known() == {"0": [0.0, 2.0], "2": [4.0, 7.0]}
    server.combine(2, model, Updates([_sent(1, {"2": ([6, 6], 3), "1": ([1, 0], 1)})]))
    assert known() == {"0": [0.0, 2.0], "1": [1.0, 0.0], "2": [6.0, 6.0]}


HELD: dict[str, tuple[list[float], int]] = {"0": ([1, 2], 3), "2": ([4, 5], 6)}


def _other(record: str, label: str, value: Any) -> Update:
    update = _sent(0, HELD)
    arrays = {**update.arrays, record: {**update.arrays[record], label: value}}
    return replace(update, arrays=arrays)


@pytest.mark.parametrize(
    ("update", "finding"),
    [
        (_sent(0, HELD), None),
        (_sent(0, {"0": HELD["0"]}), None),
        (
            _sent(0, {**HELD, "3": ([0, 0], 1)}),
            "prototypes are of labels that are not there: ['3']",
        ),
        (_sent(0, {**HELD, "-1": ([0, 0], 1)}), "of labels that are not there: ['-1']"),
        (_sent(0, {**HELD, "01": ([0, 0], 1)}), "of labels that are not there: ['01']"),
        (_sent(0, {**HELD, "1": ([0, 0], -1)}), "counts: label 1 has -1 examples"),
        (_sent(0, {**HELD, "1": ([0, 0], 0)}), "counts: label 1 has 0 examples"),
        (_sent(0, {**HELD, "1": ([0, 0, 0], 1)}), "label 1 is float32(3,), not float32(2,)"),
        (_sent(0, HELD, counts={}), "prototypes are of the labels ['0', '2'], counts of []"),
        (_sent(0, HELD, prototypes={}, counts={}), "counts are of 0 examples, the client"),
        (_other("prototypes", "1", np.zeros(2, np.float32)), "labels ['0', '1', '2'], counts of"),
        (_other("counts", "2", np.array(7)), "counts are of 10 examples, the client trained on 9"),
        (_other("counts", "2", np.array(6.0)), "counts: label 2 is float64(), not int64()"),
        (_other("counts", "2", np.array([6])), "counts: label 2 is int64(1,), not int64()"),
        (_other("prototypes", "2", np.zeros(2)), "label 2 is float64(2,), not float32(2,)"),
    ],
)
def test_what_clients_may_not_send(update: Update, finding: str | None) -> None:
    found = _server().problem(update)
    assert found is None if finding is None else finding in str(found)


# What passes between clients and server


def test_what_travels_is_prototypes() -> None:
    experiment = _plain(FedProto())
    _, told = run(experiment)
    kinds = [len(set(c.labels.tolist())) for c in holders(experiment)]
    up = [row.value for row in told.measurements if row.metric == "bytes_up"]
    down = [row.value for row in told.measurements if row.metric == "bytes_down"]
    assert up == [sum(kinds) * (6 * 4 + 8)] * ROUNDS
    assert down == [0, *[3 * 10 * 6 * 4] * (ROUNDS - 1)]


def test_features_are_what_the_last_layer_takes_in_a_test() -> None:
    data, model = tiny_data((4, 1200, 6)), Mlp(hidden=[5])  # more than one batch of a test
    experiment = config(strategy=FedProto(), model=model, rounds=1)
    clients, start = Clients(experiment, data), initial_weights(experiment)
    reply = clients.call(1, 1, Order({}))
    assert not reply.has_error()
    assert reply.content.array_records["arrays"].keys() == set()
    kept = clients.grid.client_states()[1]["kept"]
    assert isinstance(kept, dict)
    assert kept.keys() == start.keys()
    holder = Holder(data.train_examples([1]).inputs, data.train_examples([1]).targets)
    means = _means(holder, {n: a.astype(np.float64) for n, a in kept.items()})
    sent = reply.content.array_records["prototypes"]
    assert {int(label) for label in sent} == set(means)
    for label, mean in means.items():
        np.testing.assert_allclose(sent[str(label)].numpy(), mean, atol=1e-5)


def test_a_newcomer_trains_a_model_near_the_prototypes() -> None:
    clients = ClientsConfig(num=5, unseen=0.4)

    def newcomers(lam: float) -> dict[int, float]:
        ending, _ = run(_plain(FedProto(lam=lam), clients=clients))
        rows = ending.measurements
        return {
            row.client: row.value
            for row in rows
            if row.client is not None and row.split == "newcomer_test" and row.metric == "loss"
        }

    drawn, alone = newcomers(2.0), newcomers(0.0)
    assert len(drawn) == 2
    assert drawn.keys() == alone.keys()
    assert all(drawn[k] != alone[k] for k in drawn)


# What is refused before a run


@dataclass(frozen=True)
class Maps(Model):
    """A last layer that takes maps of features, and averages over places after it."""

    name: str = "maps"

    def build(self, spec: Spec) -> nn.Module:
        last = nn.Conv2d(4, spec.num_classes, 1)
        pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        return nn.Sequential(nn.Conv2d(1, 4, 7, stride=7), last, pool)


class Deaf(nn.Module):
    """Takes features in a shape of its own, one row for all inputs."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.below, self.last = nn.Linear(28 * 28, 3), nn.Linear(3, outputs)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(self.below(x.flatten(1))[:, None, :])
        return found[:, 0]


@dataclass(frozen=True)
class Places(Model):
    """A last layer that takes places of features."""

    name: str = "places"

    def build(self, spec: Spec) -> nn.Module:
        return Deaf(spec.num_classes)


@pytest.mark.parametrize(
    ("model", "finding"),
    [
        (Logistic(), "model=logistic has no other layer that is trained: choose a model of more"),
        (Maps(), "which in model=maps is not one vector an example: choose another model"),
        (Places(), "which in model=places is not one vector an example"),
    ],
)
def test_models_without_a_representation(model: Model, finding: str) -> None:
    with pytest.raises(FedexpError, match="strategy=fedproto compares what the last") as caught:
        run(small(strategy=FedProto(), model=model))
    assert finding in str(caught.value)


@pytest.mark.parametrize("dataset", [TinyNumbers(), TinyText()])
def test_tasks_without_labels(dataset: Any) -> None:
    model = Mlp(hidden=[8]) if dataset.task == "regression" else Gru(embedding=4, hidden=8)
    strategy = FedProto()
    lines = list(strategy.errors(small(strategy=strategy, dataset=dataset, model=model)))
    assert len(lines) == 1
    assert f"is of {dataset.task}" in lines[0]


def test_attacks_on_weights_that_nobody_sends() -> None:
    def lines(kind: str, fraction: float = 0.4) -> list[str]:
        clients = ClientsConfig(num=5, byzantine=ByzantineConfig(fraction, kind))
        return validate(config(strategy=FedProto(), model=Mlp(hidden=[4]), clients=clients))

    assert lines("label_flip") == lines("gaussian", 0.0) == []
    for kind in ("gaussian", "sign_flip", "little_is_enough"):
        (line,) = lines(kind)
        assert line.startswith(f"clients.byzantine.kind={kind} changes weights, and with strategy=")
