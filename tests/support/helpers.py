"""Small clients, replies and data that the tests of the runner share."""

from __future__ import annotations

import gc
import json
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import ray
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import nn

from fedexp.backends.base import Body
from fedexp.backends.inline import InlineGrid
from fedexp.config.backend import InlineBackend, RayBackend
from fedexp.config.clients import ClientsConfig
from fedexp.config.schema import Config
from fedexp.config.training import TrainingConfig
from fedexp.core.layers import Layers
from fedexp.core.roles import Client, Job, Number, Order, Setup, State, Update, Updates
from fedexp.core.weights import Weights
from fedexp.data import loading
from fedexp.data.assignment import Assignment
from fedexp.data.examples import Examples, Spec
from fedexp.data.federated import FederatedData
from fedexp.experiment import run_experiment
from fedexp.federation.client import ClientNode
from fedexp.federation.evaluation import Models, Scores, ServerEvaluation
from fedexp.federation.events import (
    Ending,
    Failure,
    Listener,
    Measurement,
    RoundReport,
    RunInfo,
)
from fedexp.flower.app import client_app
from fedexp.flower.messages import ARRAYS, METRICS, NUM_EXAMPLES, TRAIN_LOSS, pack_order, to_weights
from fedexp.models import Model
from fedexp.models.layers import fully_connected
from fedexp.models.mlp import Mlp
from fedexp.partitions.iid import Iid
from fedexp.strategies import Strategy
from fedexp.training.network import build_network

Floats = npt.NDArray[np.float32]


def config(**changes: Any) -> Config:
    """Return an experiment of three clients and a linear model, in this process unless changed."""
    defaults: dict[str, Any] = {
        "partition": Iid(),
        "model": Mlp(hidden=[]),
        "clients": ClientsConfig(num=3),
        "training": TrainingConfig(local_epochs=1, batch_size=4),
        "backend": InlineBackend(),
    }
    return Config(**{**defaults, **changes})


def played_by(run: Callable[[Job], None], **changes: Any) -> Config:
    """Return an experiment whose clients do as told; give it a local function, for Ray's sake."""

    class Scripted(Client):
        def run(self, job: Job) -> None:
            run(job)

    @dataclass(frozen=True)
    class Mine(Strategy):
        name: str = "mine"

        def client(self) -> Client:
            return Scripted()

    return config(strategy=Mine(), **changes)


TWO_WORKERS = config(backend=RayBackend(workers=2))
ONE_WORKER = config(backend=RayBackend(workers=1))


def tiny_data(sizes: tuple[int, ...] = (4, 8, 6), test_sizes: tuple[int, ...] = (3, 5, 2)) -> Any:
    """Return random images; client k holds sizes[k] to train on and test_sizes[k] to test on."""
    rng = np.random.default_rng(7)

    def images(count: int) -> Examples:
        pixels = rng.integers(0, 256, (count, 1, 28, 28), dtype=np.uint8)
        return Examples(pixels, rng.integers(0, 10, count))

    def split(counts: tuple[int, ...]) -> Assignment:
        return Assignment.of(np.split(np.arange(sum(counts)), np.cumsum(counts)[:-1]))

    train, test = images(sum(sizes)), images(max(10, sum(test_sizes)))
    return FederatedData(config().dataset.spec, train, test, split(sizes), split(test_sizes))


@dataclass(frozen=True)
class FaultyPartition(Assignment):
    """An assignment at which one client fails: it raises, or kills its process the first time."""

    bad_client: int = -1
    marker: str = ""

    def client(self, partition_id: int) -> npt.NDArray[np.int64]:
        if partition_id == self.bad_client or self.bad_client < 0:
            if not self.marker:
                raise ValueError(f"disk of client {partition_id} is gone")
            if not Path(self.marker).exists():
                Path(self.marker).touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return super().client(partition_id)


def with_fault(data: FederatedData, bad_client: int, marker: str = "") -> FederatedData:
    """Let one client of the data fail when it reads its training images; -1 is every client."""
    held = Assignment.of(data.partition.pooled())
    faulty = FaultyPartition(held.indices, held.offsets, bad_client, marker)
    return FederatedData(data.spec, data.train, data.test, faulty, data.client_test)


def initial_weights(experiment: Config) -> Weights:
    """Return the weights that the model of an experiment is built with."""
    dataset, cpu = experiment.dataset, torch.device("cpu")
    network = build_network(experiment.model, dataset.spec, experiment.seed, cpu, dataset.prepare)
    return network.weights()


def weights_of(*values: float) -> Weights:
    """Return weights of the one parameter ``w``."""
    return {"w": np.array(values, dtype=np.float32)}


def setup(
    num_clients: int = 3,
    parameters: Sequence[str] = ("w",),
    buffers: Sequence[str] = (),
    training: TrainingConfig | None = None,
) -> Setup:
    """Return what a server is told of clients and model."""
    rate = (training or TrainingConfig()).rate
    return Setup(num_clients, tuple(parameters), frozenset(buffers), rate)


def sent(
    client: int,
    *values: float,
    num_examples: int = 1,
    loss: float | None = 0.5,
    arrays: Mapping[str, Weights] | None = None,
    numbers: Mapping[str, Number] | None = None,
) -> Update:
    """Return the update of a client that sends the one parameter ``w``."""
    weights = weights_of(*values)
    return Update(client, 1, weights, num_examples, loss, arrays or {}, numbers or {})


class ScriptedJob:
    """A job whose training and losses are given; notes what it is asked for and what is sent."""

    def __init__(
        self,
        order: Order,
        trained: Weights,
        *,
        state: State | None = None,
        steps: int = 1,
        learning_rate: float = 1.0,
        momentum: float = 0.0,
        losses: Mapping[int, float] | None = None,
    ) -> None:
        self.client, self.round, self.num_examples = 0, 1, 1
        self.order, self.model, self.state = order, order.weights, {} if state is None else state
        self.steps, self.learning_rate, self.momentum = steps, learning_rate, momentum
        self.epoch_steps, self.kept = 1, frozenset[str]()
        self.layers = Layers(tuple(self.model), tuple(self.model), frozenset(self.model))
        self.asked: list[dict[str, Any]] = []
        self.sent: list[tuple[Weights, Mapping[str, Weights], Mapping[str, Number]]] = []
        self._trained, self._losses = trained, losses or {}

    @property
    def parameters(self) -> tuple[str, ...]:
        return tuple(self.model)

    def train(self, start: Weights | None = None, **wishes: Any) -> Weights:
        self.asked.append({"start": start, **wishes})
        return self._trained

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        return np.zeros(1, np.int64)

    def features(self, weights: Weights) -> npt.NDArray[np.float32]:
        return np.zeros((1, 1), np.float32)

    def label_counts(self) -> npt.NDArray[np.int64]:
        return np.ones(1, np.int64)

    def loss(self, weights: Weights) -> float:
        """Return the loss given for this very object."""
        return self._losses[id(weights)]

    def send(
        self,
        weights: Weights,
        *,
        arrays: Mapping[str, Weights] | None = None,
        numbers: Mapping[str, Number] | None = None,
    ) -> None:
        self.sent.append((weights, arrays or {}, numbers or {}))


def unpack_update(message: Message, server_round: int) -> Update:
    """Return a sound reply to training as servers see it, unguarded."""
    content = message.content
    numbers: dict[str, Any] = dict(content.metric_records[METRICS])
    num_examples, loss = numbers.pop(NUM_EXAMPLES), numbers.pop(TRAIN_LOSS, None)
    records = {name: to_weights(record) for name, record in content.array_records.items()}
    weights, client = records.pop(ARRAYS), message.metadata.src_node_id
    return Update(client, server_round, weights, num_examples, loss, records, numbers)


class Clients:
    """The clients of an experiment in this process, reached by messages as in a run."""

    def __init__(self, experiment: Config, data: FederatedData) -> None:
        app = client_app(ClientNode(experiment, lambda: data))
        self.grid = InlineGrid(app, experiment.clients.num)

    def call(self, client: int, server_round: int, order: Order, kind: str = "train") -> Message:
        """Return a client's reply to an order."""
        content = pack_order(order, server_round)
        message = Message(content, dst_node_id=client, message_type=kind)
        (reply,) = self.grid.send_and_receive([message])
        return reply

    def train(self, server_round: int, orders: Mapping[int, Order]) -> Updates:
        """Return what clients send, in the order of clients; none of them may fail."""
        replies = [self.call(client, server_round, orders[client]) for client in sorted(orders)]
        assert not any(reply.has_error() for reply in replies), [reply.error for reply in replies]
        return Updates([unpack_update(reply, server_round) for reply in replies])


def run_server(experiment: Config, data: FederatedData, server: Body) -> None:
    """Run a server function against the clients of an experiment, on its backend."""
    import_module(f"fedexp.backends.{experiment.backend.name}").run(experiment, data, server)


def flattened(table: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Return a table of tables as one row, as Flower has the configuration of a run."""
    row: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            row |= flattened(value, f"{above}{key}.")
        else:
            row[f"{above}{key}"] = value
    return row


def arrays(*values: float) -> ArrayRecord:
    return ArrayRecord({"w": Array(np.array(values, dtype=np.float32))})


def trained(*values: float, num_examples: int, loss: float = 0.5) -> RecordDict:
    """Return what a client sends after training: weights, examples, loss."""
    metrics = MetricRecord({"num-examples": num_examples, "train_loss": loss})
    return RecordDict({"arrays": arrays(*values), "metrics": metrics})


def evaluated(num_examples: int, loss: float, accuracy: float) -> RecordDict:
    """Return what a client sends after evaluating."""
    numbers: dict[str, Any] = {"num-examples": num_examples, "loss": loss, "accuracy": accuracy}
    return RecordDict({"metrics": MetricRecord(numbers)})


Answer = Callable[[int, Floats], RecordDict]
"""From a client and the weights it was sent to its reply; what it raises, the client raises."""


def scripted_app(train: Answer, evaluate: Answer | None = None) -> ClientApp:
    """Return clients that reply as told."""
    app = ClientApp()

    def reply(answer: Answer, message: Message, context: Context) -> Message:
        record = message.content["arrays"]
        assert isinstance(record, ArrayRecord)
        client = int(context.node_config["partition-id"])
        return Message(answer(client, record["w"].numpy()), reply_to=message)

    @app.train()
    def train_client(message: Message, context: Context) -> Message:
        return reply(train, message, context)

    @app.evaluate()
    def evaluate_client(message: Message, context: Context) -> Message:
        assert evaluate is not None
        return reply(evaluate, message, context)

    return app


def instruction(
    client: int, server_round: int, record: ArrayRecord, kind: str = "train"
) -> Message:
    """Return a message of the server; a grid must have been made before."""
    content = RecordDict({"arrays": record, "config": ConfigRecord({"server-round": server_round})})
    return Message(content, dst_node_id=client, message_type=kind)


def values(record: Any) -> list[float]:
    """Return the numbers of the one parameter ``w``, which must still be float32."""
    array = record["w"].numpy() if isinstance(record, ArrayRecord) else record["w"]
    assert array.dtype == np.float32
    numbers: list[float] = array.tolist()
    return numbers


@dataclass(frozen=True)
class HalfFrozen(Model):
    """A hidden layer that nobody trains, and one that everybody does."""

    name: str = "half_frozen"

    def build(self, spec: Spec) -> nn.Module:
        network = fully_connected([6], spec)
        for parameter in list(network.parameters())[:2]:
            parameter.requires_grad = False
        return network


class FirstWeight(ServerEvaluation):
    """An evaluation without images: accuracy is the first weight, loss is 10 less it."""

    def __init__(self, *initial: float) -> None:
        self.initial = {"w": np.array(initial, dtype=np.float32)}
        self.parameters, self.buffers, self.frozen = ("w",), frozenset(), frozenset()
        self.layers = Layers(("w",), ("w",), frozenset({"w"}))
        self.largest_loss = 1e6
        self.listed = range(3)
        self.seen: list[list[float]] = []

    def scores(self, weights: Weights) -> Scores:
        self.seen.append(values(weights))
        first = float(weights["w"][0])
        return {"all": {"accuracy": first, "loss": 10 - first}}

    def validation(self, models: Models) -> dict[int | None, Scores]:
        return {}


class Recorder(Listener):
    """A listener that keeps all that it is told."""

    def __init__(self) -> None:
        self.reports: list[RoundReport] = []
        self.replies: list[tuple[int, str, int, int]] = []
        self.endings: list[Ending] = []

    def progress(self, server_round: int, phase: str, done: int, total: int) -> None:
        self.replies.append((server_round, phase, done, total))

    def round(self, report: RoundReport) -> None:
        self.reports.append(report)

    def end(self, ending: Ending) -> None:
        self.endings.append(ending)

    def rows(self, **wanted: Any) -> list[Measurement]:
        """Return the measurements whose fields are as wanted."""
        return [
            row
            for row in self.measurements
            if all(getattr(row, name) == value for name, value in wanted.items())
        ]

    @property
    def measurements(self) -> list[Measurement]:
        return [row for report in self.reports for row in report.measurements]

    @property
    def failures(self) -> list[Failure]:
        return [row for report in self.reports for row in report.failures]


def run(experiment: Config, folder: Path, *overrides: str, sweep: str | None = None) -> Any:
    """Run an experiment as the program does, and return summary.json."""
    return run_experiment(RunInfo(experiment, folder, overrides, sweep))


def summary(folder: Path) -> dict[str, Any]:
    """Read summary.json."""
    content: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return content


def metrics(folder: Path) -> pd.DataFrame:
    """Read metrics.csv."""
    return pd.read_csv(folder / "metrics.csv", dtype={"subset": str})


def same_weights(left: Mapping[str, Any], right: Mapping[str, Any]) -> bool:
    """Tell whether names, dtypes and every bit agree."""
    return list(left) == list(right) and all(
        left[name].dtype == right[name].dtype and left[name].tobytes() == right[name].tobytes()
        for name in left
    )


# Ray's workers cannot import this module, so what is sent to them carries its code along.
ray.cloudpickle.register_pickle_by_value(__import__(__name__))


def draw_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs in this process leave out their pictures, which take most of a second."""
    for name in ("confusion_png", "partition_png"):
        monkeypatch.setattr(f"fedexp.federation.conclusion.{name}", lambda *_: b"")


def forget_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the datasets that this process keeps as they are, whatever a test reads."""
    monkeypatch.setattr(loading, "_loaded", loading._loaded.copy())


def leave_out_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what most of the time of a small run goes into: its pictures, collecting garbage."""
    draw_nothing(monkeypatch)
    lazy = SimpleNamespace(collect=lambda: 0, freeze=gc.freeze, unfreeze=gc.unfreeze)
    monkeypatch.setattr("fedexp.core.garbage.gc", lazy)
