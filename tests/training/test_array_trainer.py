"""Models in other frameworks: batches, order and judgement are torch's, steps are theirs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from support.helpers import config, same_weights
from support.softmax import Softmax, SoftmaxLearner

from fedexp.config.backend import InlineBackend
from fedexp.config.schema import Config
from fedexp.config.training import TrainingConfig
from fedexp.config.validation import validate
from fedexp.core.roles import Order
from fedexp.core.weights import Weights
from fedexp.data.examples import Examples, Spec
from fedexp.data.federated import FederatedData
from fedexp.datasets.cifar10 import Cifar10
from fedexp.federation.client import ClientNode
from fedexp.federation.dealing import federate
from fedexp.federation.job import ClientJob
from fedexp.frameworks.base import Batch, Learner, Recipe
from fedexp.models import Model
from fedexp.models.logistic import Logistic
from fedexp.strategies.fedavg import FedAvg
from fedexp.strategies.fedprox import FedProx
from fedexp.strategies.scaffold import Scaffold
from fedexp.testing import DoesNotConform, conforms
from fedexp.testing.runs import run, small
from fedexp.testing.tiny import TinyImages

SGD = TrainingConfig(local_steps=7, batch_size=8, weight_decay=0.01, learning_rate=0.05)


@pytest.fixture(scope="module")
def data() -> FederatedData:
    return federate(small())


def _trained(
    model: Model, data: FederatedData, training: TrainingConfig = SGD, client: int = 0, **asked: Any
) -> tuple[Weights, float | None]:
    node = ClientNode(small(model=model, training=training), lambda: data)
    start = ClientNode(small(model=Logistic()), lambda: data).trainer.initial()
    job = ClientJob(node, client, 1, Order(start), {}, data.train_examples([client]), 7)
    with node.trainer.turn(1, client):
        trained = job.train(**asked)
        job.send(trained)
    return trained, job.reply().loss


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"steps": 1},
        {"only": ["1.bias"]},
        {"pull": 0.5, "toward": {"1.weight": np.ones((10, 784)), "1.bias": np.ones(10)}},
        {"correction": {"1.weight": np.full((10, 784), 0.1), "1.bias": np.full(10, 0.1)}},
    ],
)
def test_training_is_torchs_within_float_error(data: FederatedData, asked: dict[str, Any]) -> None:
    given: dict[str, Any] = {
        key: {n: a.astype(np.float32) for n, a in value.items()} if key[0] in "tc" else value
        for key, value in asked.items()
    }
    mine, my_loss = _trained(Softmax(), data, **given)
    torchs, torchs_loss = _trained(Logistic(), data, **given)
    assert my_loss == pytest.approx(torchs_loss, rel=1e-5)
    for name, array in torchs.items():
        np.testing.assert_allclose(mine[name], array, rtol=1e-4, atol=2e-6)
    start = ClientNode(small(model=Logistic()), lambda: data).trainer.initial()
    assert ("only" in asked) == np.array_equal(mine["1.weight"], start["1.weight"])


def test_what_a_model_draws_depends_on_round_and_client_alone(data: FederatedData) -> None:
    model = Softmax(dropout=0.5)
    first, _ = _trained(model, data)
    again, _ = _trained(model, data)
    none, _ = _trained(Softmax(), data)
    assert same_weights(first, again)
    assert not same_weights(first, none)
    node = ClientNode(small(model=model, training=SGD), lambda: data)
    seeds = []
    for server_round, client in ((1, 0), (1, 1), (2, 0), (1, 0)):
        with node.trainer.turn(server_round, client):
            seeds.append(_seed_of(node))
    assert len(set(seeds)) == 3
    assert seeds[0] == seeds[3]


def _seed_of(node: ClientNode) -> int:
    seen = []

    class Watching(SoftmaxLearner):
        def fit(self, start: Weights, batches: Iterable[Batch], recipe: Recipe) -> Any:
            seen.append(recipe.seed)
            return super().fit(start, batches, recipe)

    trainer: Any = node.trainer
    trainer._learner = Watching(node.data.spec, 0.0)
    job = ClientJob(node, 0, 1, Order(trainer.initial()), {}, node.data.train_examples([0]), 1)
    job.train()
    return seen[0]


@pytest.mark.slow
def test_a_model_in_numpy_conforms() -> None:
    conforms(Softmax(dropout=0.2), ("inline",))


@pytest.mark.slow  # Ray starts
def test_every_backend_gives_a_model_in_numpy_the_same_bits() -> None:
    conforms(Softmax(dropout=0.2), ("inline", "ray", "flower"))


def test_strategies_work_with_models_in_numpy() -> None:
    for strategy in (FedProx(), Scaffold()):
        ending, told = run(small(model=Softmax(), strategy=strategy))
        assert not told.failures
        assert ending.summary["rounds"] == 2


def _lines(experiment: Config) -> list[str]:
    return list(validate(experiment))


@dataclass(frozen=True)
class Limited(Softmax):
    """Knows SGD without momentum, and no pull."""

    allows = {**Softmax.allows, "training.momentum": (0.0,)}  # noqa: RUF012
    lacks = ("pull",)
    packages = ("numpy", "nowhere-to-be-found")


@pytest.fixture
def limited() -> Any:
    from fedexp import models

    models.register(Limited)
    yield Limited()
    models.REGISTRY.forget("softmax")


def test_what_a_framework_cannot_do_is_refused(limited: Limited) -> None:
    plain = replace(small(), model=limited, strategy=FedAvg(), dataset=config().dataset)
    training = TrainingConfig(amp=True, momentum=0.9)
    backend = InlineBackend(device="cuda", threads=2)
    refused = "\n".join(
        _lines(replace(plain, training=training, backend=backend, strategy=FedProx()))
    )
    for told in (
        "model=softmax needs nowhere-to-be-found: pip install nowhere-to-be-found",
        "model=softmax is written in NumPy: training.amp must be false, got true",
        "training.momentum must be 0.0, got 0.9",
        "backend.device must be auto, got cuda",
        "backend.threads must be 1, got 2",
        "strategy=fedprox asks clients for job.train(pull=...), which model=softmax (NumPy) cannot do",
    ):
        assert told in refused
    allowed = replace(plain, training=TrainingConfig(momentum=0.0))
    assert _lines(allowed) == [
        "model=softmax needs nowhere-to-be-found: pip install nowhere-to-be-found"
    ]


def test_a_strategy_that_does_not_say_what_it_asks_fails_in_a_line(
    data: FederatedData,
) -> None:
    with pytest.raises(ValueError, match=r"job.train\(pull=...\): model=softmax cannot do it"):
        _trained(Limited(), data, pull=0.5)


class Lossless(SoftmaxLearner):
    def fit(self, start: Weights, batches: Iterable[Batch], recipe: Recipe) -> Any:
        return super().fit(start, batches, recipe)[0], []


class Renaming(SoftmaxLearner):
    def fit(self, start: Weights, batches: Iterable[Batch], recipe: Recipe) -> Any:
        trained, losses = super().fit(start, batches, recipe)
        return {"w": trained["1.weight"], "1.bias": trained["1.bias"]}, losses


class Widening(SoftmaxLearner):
    def fit(self, start: Weights, batches: Iterable[Batch], recipe: Recipe) -> Any:
        trained, losses = super().fit(start, batches, recipe)
        return {name: array.astype(np.float64) for name, array in trained.items()}, losses


class Unseeded(SoftmaxLearner):
    def initial(self, seed: int) -> Weights:
        return super().initial(int(np.random.default_rng().integers(2**31)))


class Remembering(SoftmaxLearner):
    calls = 0

    def fit(self, start: Weights, batches: Iterable[Batch], recipe: Recipe) -> Any:
        self.calls += 1
        return super().fit(start, batches, replace(recipe, learning_rate=0.01 * self.calls))


@pytest.mark.parametrize(
    ("learner", "finding"),
    [
        (Lossless, r"fit\(\) returned 0 losses for 3 batches"),
        (
            Renaming,
            r"fit\(\) returned weights \['w', '1.bias'\] do not fit a model of \['1.weight'",
        ),
        (
            Widening,
            r"fit\(\) returned weights 1.weight: float64\(10, 784\), the model's are float32",
        ),
        (Unseeded, r"initial\(\) gives other weights for the same seed"),
        (Remembering, "depends on which clients trained before in the same process"),
    ],
)
def test_learners_that_do_not_conform(learner: type[SoftmaxLearner], finding: str) -> None:
    @dataclass(frozen=True)
    class Faulty(Softmax):
        def learner(self, spec: Spec, task: str) -> Learner:
            return learner(spec, 0.0)

    with pytest.raises(DoesNotConform, match=finding):
        conforms(Faulty(), ("inline",))


def test_batches_are_varied_as_the_page_says() -> None:
    """Augmentation is the data set's, so that every framework has it."""
    seen: list[Batch] = []

    class Seeing(SoftmaxLearner):
        def fit(self, start: Weights, batches: Iterable[Batch], recipe: Recipe) -> Any:
            seen.extend((x, y) for x, y in batches)
            return start, [0.0] * len(seen)

    @dataclass(frozen=True)
    class Watched(Softmax):
        def learner(self, spec: Spec, task: str) -> Learner:
            return Seeing(spec, 0.0)

    page, images = Cifar10(augment=True), TinyImages().load()[0].inputs[:4]
    examples = Examples(np.repeat(images, 3, axis=1), np.arange(4))
    experiment = replace(small(), model=Watched(), dataset=page)
    node = ClientNode(experiment, lambda: FederatedData(page.spec, examples, examples, *_two()))
    job = ClientJob(node, 0, 1, Order(node.trainer.initial()), {}, examples, 3)
    job.train()
    plain = page.prepare(_tensor(examples.inputs)).numpy()
    assert [x.dtype for x, _ in seen] == [np.float32] * 3
    assert all(not np.array_equal(x, plain[y]) for x, y in seen)


def _tensor(array: Any) -> Any:
    import torch

    return torch.from_numpy(array)


def _two() -> Any:
    from fedexp.data.assignment import Assignment

    everything = Assignment.of([np.arange(4)])
    return everything, everything
