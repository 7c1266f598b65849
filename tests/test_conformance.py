"""Built-in pages keep to their contracts, and pages that do not are told what is wrong with them."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import ray
import torch
from support.helpers import config, forget_datasets, leave_out_the_rest
from torch import Tensor, nn

from fedexp import attacks, metrics, models, partitions, strategies
from fedexp.attacks import Attack
from fedexp.config.clients import ByzantineConfig, ClientsConfig
from fedexp.config.schema import Config
from fedexp.core.registry import PluginError
from fedexp.core.roles import Client, Job, Server, Setup, Updates
from fedexp.core.weights import Weights
from fedexp.data import loading
from fedexp.data.examples import Examples, Spec
from fedexp.datasets import Dataset
from fedexp.datasets.mnist5k import Mnist5k
from fedexp.metrics import Metric, Predictions
from fedexp.models import Model
from fedexp.partitions import Partition
from fedexp.partitions.exclude import Exclude
from fedexp.starting import KINDS, starting_file
from fedexp.strategies import Strategy
from fedexp.testing import DoesNotConform, conforms, try_out

INLINE, EVERYWHERE = ("inline",), ("inline", "ray", "flower")


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what most of the time of a small run goes into: its figures, collecting garbage."""
    leave_out_the_rest(monkeypatch)


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_datasets(monkeypatch)


@dataclass(frozen=True)
class SmallNorm(Model):
    """BatchNorm over the pixels, one channel."""

    has_buffers = True

    name: str = "small_norm"

    def build(self, spec: Spec) -> nn.Module:
        inputs = int(np.prod(spec.shape))
        return nn.Sequential(
            nn.BatchNorm2d(spec.shape[0]), nn.Flatten(), nn.Linear(inputs, spec.num_classes)
        )


@pytest.fixture
def small_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let strategies survive a small network with BatchNorm in place of MobileNet."""
    monkeypatch.setattr("fedexp.testing.pages.MobilenetV3Small", SmallNorm)


@pytest.fixture
def ray_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep Ray for the next test, which Flower's runtime would shut down."""
    monkeypatch.setattr(ray, "shutdown", lambda: None)


LARGE = ("mobilenet_v3_small", "resnet18")
SLOW = (*LARGE, "cnn", "char_lstm", "gru", "transformer")  # those that only the slow set tries
BARE = [name for name in models.choices() if not models.get(name).extra]
"""Models that need nothing further installed; tests/extras tries the others."""
PARTITIONS = [page() for page in partitions.REGISTRY.pages().values() if page is not Exclude]


# Of those that make models for their clients, or change what a step is, three stand for all; the slow set
# tries every one.
FEW = [
    name
    for name, page in strategies.REGISTRY.pages().items()
    if name in ("apfl", "fedper", "moon")
    or not (page.personalised or {"loss", "rule"} & {*page.asks})
]


@pytest.mark.parametrize("name", FEW)
def test_strategies(name: str, small_norm: None) -> None:
    conforms(strategies.get(name)(), INLINE)


@pytest.mark.slow
@pytest.mark.parametrize("name", strategies.choices())
def test_strategies_everywhere(name: str, ray_stays: None) -> None:
    conforms(strategies.get(name)(), EVERYWHERE)


@pytest.mark.parametrize("name", [name for name in BARE if name not in SLOW])
def test_models(name: str) -> None:
    conforms(models.get(name)(), INLINE)


@pytest.mark.slow
@pytest.mark.parametrize("name", BARE)
def test_models_everywhere(name: str, ray_stays: None) -> None:
    conforms(models.get(name)(), EVERYWHERE if name not in LARGE else INLINE)


@pytest.mark.parametrize("name", attacks.choices())
def test_attacks(name: str) -> None:
    conforms(attacks.get(name)(), INLINE)


@pytest.mark.slow
@pytest.mark.parametrize("name", attacks.choices())
def test_attacks_everywhere(name: str, ray_stays: None) -> None:
    conforms(attacks.get(name)(scale=3.0), EVERYWHERE)


def test_datasets() -> None:
    conforms(Mnist5k())


@pytest.mark.parametrize(
    "partition",
    [*PARTITIONS, Exclude(exclude=[[0, 1]]), Exclude(exclude=[[1, 3, 7], [2]])],
    ids=lambda partition: f"{partition.name}{len(getattr(partition, 'exclude', ''))}",
)
def test_partitions(partition: Partition) -> None:
    conforms(partition)


@pytest.mark.parametrize("name", metrics.choices())
def test_metrics(name: str) -> None:
    conforms(metrics.get(name)())


@pytest.mark.parametrize("kind", KINDS)
def test_starting_files(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_norm: None
) -> None:
    path = tmp_path / "my_own.py"
    path.write_text(starting_file(kind, "my_own"))
    spec = importlib.util.spec_from_file_location("my_own", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "my_own", module)
    spec.loader.exec_module(module)
    room: Any = {"metric": metrics}.get(kind) or sys.modules[f"fedexp.{_PLURAL[kind]}"]
    try:
        conforms(module.MyOwn(), INLINE)
    finally:
        room.REGISTRY.forget("my_own")


_PLURAL = {
    "strategy": "strategies",
    "dataset": "datasets",
    "model": "models",
    "partition": "partitions",
    "attack": "attacks",
}


def test_what_is_no_page_is_refused() -> None:
    for thing in (Mnist5k, nn.Linear(1, 1), "fedavg", None, Server()):
        with pytest.raises(TypeError):
            conforms(thing)


def test_its_error_is_one_that_users_are_told() -> None:
    assert issubclass(DoesNotConform, PluginError)


def _finding(page: Any) -> str:
    """Return what is wrong with a page, less who it is."""
    with pytest.raises(DoesNotConform) as caught:
        conforms(page, INLINE)
    message = str(caught.value)
    assert "\n" not in message
    who = f"{type(page).__name__} ({page.name}): "
    assert message.startswith(who)
    return message.removeprefix(who)


def _line_of(code: str) -> str:
    """Return how the place of a line of this file is told."""
    lines = Path(__file__).read_text().splitlines()
    (number,) = [k for k, line in enumerate(lines, 1) if line.strip() == code]
    return f"({__file__}:{number})"


# Models


@dataclass(frozen=True)
class Net(Model):
    """Builds what a subclass says."""

    name: str = "net"

    def build(self, spec: Spec) -> nn.Module:
        return self.network(int(np.prod(spec.shape)), spec.num_classes)

    def network(self, inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(inputs, outputs))


def test_a_model_of_ones_own_conforms() -> None:
    conforms(Net(), INLINE)
    conforms(SmallNorm(), INLINE)


class Unseeded(Net):
    def network(self, inputs: int, outputs: int) -> nn.Module:
        net = super().network(inputs, outputs)
        fresh = torch.Generator()
        fresh.seed()
        with torch.no_grad():
            next(net.parameters()).normal_(0, 0.01, generator=fresh)
        return net


class Untrainable(Net):
    def network(self, inputs: int, outputs: int) -> nn.Module:
        return super().network(inputs, outputs).requires_grad_(False)


class BornBroken(Net):
    def network(self, inputs: int, outputs: int) -> nn.Module:
        net = super().network(inputs, outputs)
        nn.init.constant_(next(net.parameters()), float("nan"))
        return net


class Forward(nn.Module):
    """Flat inputs, a linear layer, and then what a subclass says."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.linear(x.flatten(1)))

    def last(self, logits: Tensor) -> Tensor:
        return logits


class Aloof(Net):
    def network(self, inputs: int, outputs: int) -> nn.Module:
        class Copies(Forward):
            def state_dict(self, *args: Any, **kwargs: Any) -> Any:
                found = super().state_dict(*args, **kwargs)
                return {name: value.clone() for name, value in found.items()}

        return Copies(inputs, outputs)


class TooWide(Net):
    def network(self, inputs: int, outputs: int) -> nn.Module:
        return super().network(inputs, outputs + 1)


class Forgetful(Net):
    def network(self, inputs: int, outputs: int) -> nn.Module:
        class OneOnly(Forward):
            def last(self, logits: Tensor) -> Tensor:
                return logits[0]

        return OneOnly(inputs, outputs)


class Infinite(Net):
    def network(self, inputs: int, outputs: int) -> nn.Module:
        class Divided(Forward):
            def last(self, logits: Tensor) -> Tensor:
                return logits / 0

        return Divided(inputs, outputs)


CALLS = [0]


class Remembering(Net):
    def network(self, inputs: int, outputs: int) -> nn.Module:
        class Counter(Forward):
            def last(self, logits: Tensor) -> Tensor:
                CALLS[0] += self.training
                return logits * (1 + CALLS[0])

        return Counter(inputs, outputs)


class Stubborn(Net):
    def network(self, inputs: int, outputs: int) -> nn.Module:
        class Nothing(Forward):
            def last(self, logits: Tensor) -> Tensor:
                return 0 * logits

        return Nothing(inputs, outputs)


class Raising(Net):
    def network(self, inputs: int, outputs: int) -> nn.Module:
        class Torn(Forward):
            def last(self, logits: Tensor) -> Tensor:
                return logits.reshape(3, 5, 7)  # as nobody can

        return Torn(inputs, outputs)


@pytest.mark.parametrize(
    ("model", "finding"),
    [
        (Unseeded, "build() gives other weights for the same seed"),
        (Untrainable, "no parameter requires gradients"),
        (BornBroken, "the initial 1.weight holds NaN or infinity"),
        (Aloof, "the state dict is not the module's own memory"),
        (
            TooWide,
            "outputs must have shape (2, 10) for two inputs, got (2, 11)",
        ),
        (
            Forgetful,
            "outputs must have shape (2, 10) for two inputs, got (10,)",
        ),
        (Infinite, "outputs of the initial model are not finite"),
        (Remembering, "a client's training depends on which clients trained before"),
        (Stubborn, "three steps of SGD change no parameter"),
        (Raising, "RuntimeError: shape '[3, 5, 7]' is invalid for input of size 20"),
        (Model, "NotImplementedError: model= does not say how it is built"),
    ],
)
def test_models_that_do_not_conform(model: type[Model], finding: str) -> None:
    assert _finding(model()).startswith(finding)
    if model is not Model:
        with pytest.raises(DoesNotConform) as caught:
            try_out(config(model=model()))
        assert finding in str(caught.value)


def test_the_line_that_raised_is_named() -> None:
    assert _finding(Raising()).endswith(_line_of("return logits.reshape(3, 5, 7)  # as nobody can"))


@dataclass(frozen=True)
class NormOfRows(Net):
    """BatchNorm over the rows of a batch, which no batch of one survives in plain PyTorch either."""

    has_buffers = True

    name: str = "norm_of_rows"

    def network(self, inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(
            nn.Flatten(), nn.Linear(inputs, 8), nn.BatchNorm1d(8), nn.Linear(8, outputs)
        )


def test_a_network_that_needs_two_rows_for_its_batchnorm_conforms() -> None:
    try_out(config(model=NormOfRows()))
    conforms(NormOfRows(), INLINE)


@dataclass(frozen=True)
class OfRows(Net):
    """Takes vectors alone."""

    kinds = ("vector",)

    name: str = "of_rows"

    def build(self, spec: Spec) -> nn.Module:
        (inputs,) = spec.shape
        return nn.Linear(inputs, spec.num_classes)


def test_a_model_is_tried_with_inputs_of_its_kind() -> None:
    try_out(config(model=OfRows(), dataset=Rows()))
    conforms(OfRows(), INLINE)


# Datasets


@dataclass(frozen=True)
class Rows(Dataset):
    """Two clouds of points."""

    facts: ClassVar[Spec | None] = Spec((3,), ("no", "yes"), 80, 20)

    name: str = "rows"

    def load(self) -> tuple[Examples, Examples]:
        rng = np.random.default_rng(0)
        inputs = rng.standard_normal((100, 3)).astype(np.float32)
        targets = (inputs[:, 0] > 0).astype(np.int64)
        return Examples(inputs[:80], targets[:80]), Examples(inputs[80:], targets[80:])


@dataclass(frozen=True)
class Unmeasured(Rows):
    facts = None


def test_a_dataset_of_ones_own_conforms() -> None:
    conforms(Rows())
    conforms(Unmeasured())
    assert Unmeasured().spec == Spec((3,), ("0", "1"), 80, 20)


class FewerRows(Rows):
    facts = Spec((3,), ("no", "yes"), 81, 20)


class FewerTests(Rows):
    facts = Spec((3,), ("no", "yes"), 80, 21)


class OtherShape(Rows):
    facts = Spec((1, 3), ("no", "yes"), 80, 20)


class OneClass(Rows):
    facts = Spec((3,), ("no",), 80, 20)


class Fickle(Rows):
    def load(self) -> tuple[Examples, Examples]:
        CALLS[0] += 1
        train, test = super().load()
        return Examples(train.inputs + CALLS[0], train.targets), test


class FickleTest(Rows):
    def load(self) -> tuple[Examples, Examples]:
        CALLS[0] += 1
        train, test = super().load()
        return train, Examples(test.inputs + CALLS[0], test.targets)


class WritesPrepare(Rows):
    def prepare(self, batch: Tensor) -> Tensor:
        return batch.mul_(2)


class WritesPrepareOfVaried(WritesPrepare):
    def vary(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        return batch + torch.rand(len(batch), 1, generator=generator)


class WritesVary(Rows):
    def vary(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        return batch.add_(torch.rand(len(batch), 1, generator=generator))


class OneLess(Rows):
    def vary(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        return batch[1:]


class Precise(Rows):
    def prepare(self, batch: Tensor) -> Tensor:
        return batch.double()


class Logarithm(Rows):
    def prepare(self, batch: Tensor) -> Tensor:
        return batch.log()


class Broken(Rows):
    def load(self) -> tuple[Examples, Examples]:
        train, test = super().load()
        train.inputs[7] = np.nan
        return train, test


class Absent(Rows):
    def ensure(self) -> None:
        raise FileNotFoundError("rows.csv is not there")


@pytest.mark.parametrize(
    ("dataset", "finding"),
    [
        (
            FewerRows,
            "there are 80 training examples; facts says 81",
        ),
        (FewerTests, "there are 20 test examples; facts says 21"),
        (
            OtherShape,
            "the training inputs have shape (3,); its page says",
        ),
        (OneClass, "the training targets hold labels up to 1; its page says 1 classes"),
        (Fickle, "load() returns other examples the second time"),
        (FickleTest, "load() returns other examples the second time"),
        (WritesPrepare, "prepare() or vary() writes to the batch"),
        (WritesPrepareOfVaried, "prepare() or vary() writes to the batch"),
        (WritesVary, "prepare() or vary() writes to the batch"),
        (OneLess, "vary() must keep the shape (2, 3)"),
        (Precise, "prepare() must return finite float32, got torch.float64"),
        (Logarithm, "prepare() must return finite float32, got torch.float32"),
        (Broken, "dataset=rows: the training examples must be finite numbers"),
        (Absent, "FileNotFoundError: rows.csv is not there ("),
        (Dataset, "NotImplementedError: dataset= does not say how it is read"),
    ],
)
def test_datasets_that_do_not_conform(dataset: type[Dataset], finding: str) -> None:
    assert _finding(dataset()).startswith(finding)
    if dataset is not Dataset:
        with pytest.raises(DoesNotConform, match=r"\(rows\): "):
            try_out(config(dataset=dataset()))


# Partitions


@dataclass(frozen=True)
class Turns(Partition):
    """Deals the examples in turns."""

    name: str = "turns"

    def deal(self, labels: Any, num_clients: int, seed: int) -> Sequence[Any]:
        return [np.arange(k, len(labels), num_clients) for k in range(num_clients)]


def test_a_partition_of_ones_own_conforms() -> None:
    conforms(Turns())
    try_out(config(partition=Turns()))


class Twice(Turns):
    def deal(self, labels: Any, num_clients: int, seed: int) -> Sequence[Any]:
        return [*super().deal(labels, num_clients, seed)[1:], np.arange(2 * num_clients) // 2]


class Beyond(Turns):
    def deal(self, labels: Any, num_clients: int, seed: int) -> Sequence[Any]:
        return [part + 1 for part in super().deal(labels, num_clients, seed)]


class TooFew(Turns):
    def deal(self, labels: Any, num_clients: int, seed: int) -> Sequence[Any]:
        return super().deal(labels, num_clients + 1, seed)


class Empty(Turns):
    def deal(self, labels: Any, num_clients: int, seed: int) -> Sequence[Any]:
        return [part[len(labels) :] for part in super().deal(labels, num_clients, seed)]


class OtherEachTime(Turns):
    def deal(self, labels: Any, num_clients: int, seed: int) -> Sequence[Any]:
        order = np.random.default_rng().permutation(len(labels))
        return [order[part] for part in super().deal(labels, num_clients, seed)]


class WritesLabels(Turns):
    def deal(self, labels: Any, num_clients: int, seed: int) -> Sequence[Any]:
        labels[0] += 1
        return super().deal(labels, num_clients, seed)


class Dividing(Turns):
    def deal(self, labels: Any, num_clients: int, seed: int) -> Sequence[Any]:
        return [np.arange(len(labels) // (num_clients - num_clients))]  # by nothing


@pytest.mark.parametrize(
    ("partition", "finding"),
    [
        (Twice, "partition=turns gives an example to more than one client"),
        (
            Beyond,
            "partition=turns deals positions from 1 to ",
        ),
        (TooFew, "partition=turns makes 2 partitions, clients.num is 1"),
        (Empty, "partition=turns leaves 1 of 1 clients without an example"),
        (OtherEachTime, "deal() gives another assignment for the same seed"),
        (WritesLabels, "deal() writes to the labels it is given"),
        (Dividing, "ZeroDivisionError: integer division or modulo by zero ("),
        (Partition, "NotImplementedError: partition= does not say who holds what"),
    ],
)
def test_partitions_that_do_not_conform(partition: type[Partition], finding: str) -> None:
    loading._loaded.clear()  # one of them writes to what is kept
    assert _finding(partition()).startswith(finding)
    loading._loaded.clear()
    if partition is not Partition:
        with pytest.raises(DoesNotConform, match=r"\(turns\): "):
            try_out(config(partition=partition()))
    loading._loaded.clear()


class Blurred(Turns):
    def as_seen(self, train: Any, test: Any, seed: int) -> Any:
        return [inputs.blurred() for inputs, _ in (train, test)]


def test_what_clients_see_is_part_of_a_partition() -> None:
    assert "AttributeError" in _finding(Blurred())


# Metrics


class Share(Metric):
    """The share of labels that are right."""

    name = "share"

    def of(self, found: Predictions) -> float:
        return float((found.labels == found.targets).mean())


def test_a_metric_of_ones_own_conforms() -> None:
    conforms(Share())


class NotOfOne(Share):
    def of(self, found: Predictions) -> float:
        spread = found.losses.std(ddof=1) if len(found) > 1 else np.nan
        return float(spread)


class NotOfOneLabel(Share):
    def of(self, found: Predictions) -> float:
        return 1.0 if len(found) == 1 or len(set(found.targets)) > 1 else float("inf")


class Whole(Share):
    def of(self, found: Predictions) -> float:
        return int(super().of(found))


class Narrow(Share):
    def of(self, found: Predictions) -> float:
        return np.float32(super().of(found))  # type: ignore[return-value]


class First(Share):
    def of(self, found: Predictions) -> float:
        return float(found.losses[0])


class Curious(Share):
    def of(self, found: Predictions) -> float:
        return float(found.probabilities.max())  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("metric", "finding"),
    [
        (NotOfOne, "of() must return a finite float for one example, got nan"),
        (NotOfOneLabel, "of() must return a finite float for examples of one target, got inf"),
        (Whole, "of() must return a finite float for 50 examples, got 0"),
        (Narrow, "of() must return a finite float for 50 examples, got np.float32("),
        (First, "of() depends on the order of the examples"),
        (Curious, "AttributeError: 'NoneType' object has no attribute 'max' ("),
        (Metric, "NotImplementedError: metric "),
    ],
)
def test_metrics_that_do_not_conform(metric: type[Metric], finding: str) -> None:
    assert _finding(metric()).startswith(finding)


def test_a_metric_that_was_chosen_is_tried_out() -> None:
    metrics.register(First)
    try:
        with pytest.raises(DoesNotConform, match="depends on the order"):
            try_out(config(metrics=["accuracy", "share"]))
        try_out(config(metrics=["accuracy"]))
    finally:
        metrics.REGISTRY.forget("share")


# Strategies


@dataclass(frozen=True)
class Mean(Strategy):
    """Federated averaging."""

    name: str = "mean"

    def server(self, setup: Setup) -> Server:
        return Server()


def test_a_strategy_of_ones_own_conforms(small_norm: None) -> None:
    conforms(Mean(), INLINE)
    try_out(config(strategy=Mean()))


class NoServer(Mean):
    def server(self, setup: Setup) -> Server:
        return self  # type: ignore[return-value]


class NoClient(Mean):
    def client(self) -> Client:
        return None  # type: ignore[return-value]


class ByChance(Server):
    def combine(self, t: int, model: Weights, updates: Updates) -> Weights:
        chance = np.random.default_rng().random()
        return {name: array * np.float32(chance) for name, array in updates.mean().items()}


class Gambling(Mean):
    def server(self, setup: Setup) -> Server:
        return ByChance()


class Hasty(Server):
    def combine(self, t: int, model: Weights, updates: Updates) -> Weights:
        mean = updates.mean()
        return {name: array + 30 * (mean[name] - array) for name, array in model.items()}


class Overshooting(Mean):
    def server(self, setup: Setup) -> Server:
        return Hasty()


class Counting(Client):
    def run(self, job: Job) -> None:
        CALLS[0] += 1
        job.send(job.train(), numbers={"calls": CALLS[0]})


class AddsCalls(Server):
    def combine(self, t: int, model: Weights, updates: Updates) -> Weights:
        calls = np.float32(sum(update.numbers["calls"] for update in updates))
        return {name: array + calls for name, array in updates.mean().items()}


class OwnMemory(Mean):
    def client(self) -> Client:
        return Counting()

    def server(self, setup: Setup) -> Server:
        return AddsCalls()


class AllOrNothing(Server):
    def combine(self, t: int, model: Weights, updates: Updates) -> Weights:
        if len(updates) not in (3, 8):
            raise ValueError("where are they?")
        return updates.mean()


class Fussy(Mean):
    def server(self, setup: Setup) -> Server:
        return AllOrNothing()


class Momentum:
    def __init__(self) -> None:
        self.seen = 0


class HidesItsState(Server):
    def __init__(self) -> None:
        self.momentum = Momentum()

    def combine(self, t: int, model: Weights, updates: Updates) -> Weights:
        self.momentum.seen += 1
        return {name: array * np.float32(0.9) for name, array in updates.mean().items()}


class Unsavable(Mean):
    def server(self, setup: Setup) -> Server:
        return HidesItsState()


class ForgetsItsState(Server):
    def __init__(self) -> None:
        self.rounds = 0

    def combine(self, t: int, model: Weights, updates: Updates) -> Weights:
        self.rounds += 1
        factor = np.float32(1 / (1 + self.rounds))
        return {name: array * factor for name, array in updates.mean().items()}

    def state(self) -> dict[str, Any]:
        return {}


class LosesItsState(Mean):
    def server(self, setup: Setup) -> Server:
        return ForgetsItsState()


class Mute(Client):
    def run(self, job: Job) -> None:
        job.train()


class Silent(Mean):
    def client(self) -> Client:
        return Mute()


class FailsOnce(Client):
    def run(self, job: Job) -> None:
        if job.client == 1:
            raise KeyError("control")
        job.send(job.train())


class PartlyBroken(Mean):
    def client(self) -> Client:
        return FailsOnce()


@pytest.mark.parametrize(
    ("strategy", "finding"),
    [
        (NoServer, "server() must return a Server, got NoServer("),
        (NoClient, "client() must return a Client, got None"),
        (Gambling, "backend=inline gives another model than backend=inline"),
        (OwnMemory, "backend=inline gives another model than backend=inline"),
        (Overshooting, "BatchNorm's running variances become negative"),
        (Fussy, "ValueError: where are they? ("),
        (Unsavable, "a run cannot be resumed: server/momentum is of type "),
        (LosesItsState, "a run that is resumed comes to other numbers"),
        (Silent, "round 1: all 3 clients failed to train; client 0: ValueError: the strategy's"),
    ],
)
def test_strategies_that_do_not_conform(
    strategy: type[Strategy], finding: str, small_norm: None
) -> None:
    assert _finding(strategy()).startswith(finding)


def test_a_strategy_whose_client_raises_for_one_of_them(small_norm: None) -> None:
    assert "KeyError: 'control'" in _finding(PartlyBroken())


def test_only_the_sides_of_a_strategy_are_tried_out_before_a_run() -> None:
    for strategy in (NoServer(), NoClient()):
        with pytest.raises(DoesNotConform, match="must return a"):
            try_out(config(strategy=strategy))
    try_out(config(strategy=Gambling()))


# Attacks


@dataclass(frozen=True)
class Doubling(Attack):
    """Sends twice the weights; with chance, a random multiple of them."""

    name: str = "doubling"
    chance: bool = False

    def weights(self, before: Weights, after: Weights, rng: np.random.Generator) -> Weights:
        factor = np.float32(np.random.default_rng().random() if self.chance else 2)
        return {name: array * factor for name, array in after.items()}


@dataclass(frozen=True)
class ByLuck(Doubling):
    def weights(self, before: Weights, after: Weights, rng: np.random.Generator) -> Weights:
        factor = np.float32(np.random.default_rng().random())
        return {name: array * factor for name, array in after.items()}


_ODD: Any = np  # it has no such function


@dataclass(frozen=True)
class Misspelt(Doubling):
    def weights(self, before: Weights, after: Weights, rng: np.random.Generator) -> Weights:
        return {name: _ODD.inwert(array) for name, array in after.items()}


@dataclass(frozen=True)
class Returnless(Doubling):
    def weights(self, before: Weights, after: Weights, rng: np.random.Generator) -> Weights:
        return None  # type: ignore[return-value]


@dataclass(frozen=True)
class NotANumber(Doubling):
    def weights(self, before: Weights, after: Weights, rng: np.random.Generator) -> Weights:
        return {name: array * np.float32(np.nan) for name, array in after.items()}


@pytest.fixture
def no_trace() -> Iterator[None]:
    before = attacks.choices()
    yield
    assert attacks.choices() == before


@pytest.mark.usefixtures("no_trace")
def test_an_attack_of_ones_own_conforms() -> None:
    conforms(Doubling(), INLINE)
    # What it sends is refused by the guards, and the run goes on: that is an attack, too.
    conforms(NotANumber(), INLINE)


@pytest.mark.usefixtures("no_trace")
def test_an_attack_that_is_not_drawn_from_its_generator() -> None:
    assert _finding(ByLuck()) == "backend=inline gives another model than backend=inline"


@pytest.mark.usefixtures("no_trace")
def test_an_attack_is_tried_with_its_own_options() -> None:
    finding = _finding(Doubling(chance=True))
    assert finding == "backend=inline gives another model than backend=inline"


@pytest.mark.usefixtures("no_trace")
def test_an_attack_whose_code_raises() -> None:
    assert "AttributeError" in _finding(Misspelt())


@pytest.mark.usefixtures("no_trace")
def test_an_attack_that_returns_nothing() -> None:
    # Its clients would fail in every round, and the strategy would seem to withstand it.
    assert "weights() must return a dictionary of NumPy arrays, got None" in _finding(Returnless())


def test_an_attack_that_was_chosen_is_tried_out() -> None:
    attacks.register(Misspelt)

    def try_with(fraction: float) -> None:
        faulty = ByzantineConfig(fraction, Misspelt.name)
        try_out(config(clients=ClientsConfig(num=5, byzantine=faulty)))

    try:
        try_with(0.0)
        with pytest.raises(DoesNotConform, match="AttributeError"):
            try_with(0.4)
    finally:
        attacks.REGISTRY.forget("doubling")


# Before a run


def test_built_in_pages_are_not_tried_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("tried out")

    for name in ("check_dataset", "check_partition", "check_metric", "check_model", "check_sides"):
        monkeypatch.setattr(f"fedexp.testing.{name}", fail)
    try_out(config(metrics=["macro_f1"]))
    for page in ({"dataset": Rows()}, {"partition": Turns()}, {"model": Net()}):
        experiment: Config = config(**page)
        with pytest.raises(DoesNotConform, match="tried out"):
            try_out(experiment)
