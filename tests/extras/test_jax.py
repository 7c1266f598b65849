"""Models in JAX: torch's numbers within float error, and the same bits wherever clients run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from support.helpers import same_weights

from fedexp import tasks
from fedexp.config.clients import ClientsConfig
from fedexp.config.schema import Config
from fedexp.config.training import TrainingConfig
from fedexp.core.roles import Order
from fedexp.core.weights import Weights
from fedexp.data.examples import Spec
from fedexp.data.federated import FederatedData
from fedexp.datasets.mnist5k import Mnist5k
from fedexp.federation.client import ClientNode
from fedexp.federation.dealing import federate
from fedexp.federation.job import ClientJob
from fedexp.frameworks.on_jax import filled, loss_of, rounded
from fedexp.models import Model
from fedexp.models.jax_mlp import JaxMlp
from fedexp.models.mlp import Mlp
from fedexp.strategies.scaffold import Scaffold
from fedexp.testing import conforms
from fedexp.testing.runs import run, same_everywhere, small
from fedexp.testing.tiny import TinyNumbers, TinyPairs
from fedexp.training.network import build_network

SGD = TrainingConfig(local_steps=7, batch_size=8, learning_rate=0.05)


@pytest.fixture(scope="module")
def data() -> FederatedData:
    return federate(small())


def _torchs(spec: Spec, seed: int) -> Weights:
    page = Mnist5k()
    return build_network(Mlp(), spec, seed, torch.device("cpu"), page.prepare).weights()


@dataclass(frozen=True)
class Alike(JaxMlp):
    """The lesson's network in JAX, from the weights that torch starts from."""

    seed: int = 0

    def initial(self, spec: Spec, rng: np.random.Generator) -> Weights:
        return _torchs(spec, self.seed)


def _trained(
    model: Model, data: FederatedData, training: TrainingConfig, asked: dict[str, Any]
) -> tuple[Weights, float | None]:
    node = ClientNode(small(model=model, training=training), lambda: data)
    start = _torchs(data.spec, 0)
    job = ClientJob(node, 0, 1, Order(start), {}, data.train_examples([0]), 7)
    with node.trainer.turn(1, 0):
        trained = job.train(**asked)
        job.send(trained)
    return trained, job.reply().loss


def _constant(value: float) -> Weights:
    return {n: np.full_like(a, value) for n, a in _torchs(Mnist5k().spec, 0).items()}


@pytest.mark.parametrize(
    ("training", "asked"),
    [
        (SGD, {"steps": 1}),
        (SGD, {}),
        (replace(SGD, weight_decay=0.1), {}),
        (replace(SGD, momentum=0.0), {"only": ["3.weight", "3.bias"]}),
        (replace(SGD, max_grad_norm=0.5), {"pull": 0.5, "toward": _constant(0.1)}),
        (SGD, {"correction": _constant(0.05)}),
        (SGD, {"pull": 0.5}),
        (replace(SGD, optimizer="adam", learning_rate=0.001, weight_decay=0.1), {}),
        (replace(SGD, optimizer="adamw", learning_rate=0.001, weight_decay=0.1), {}),
    ],
)
def test_training_is_torchs_within_float_error(
    data: FederatedData, training: TrainingConfig, asked: dict[str, Any]
) -> None:
    mine, my_loss = _trained(JaxMlp(), data, training, asked)
    torchs, torchs_loss = _trained(Mlp(), data, training, asked)
    assert my_loss == pytest.approx(torchs_loss, rel=1e-4)
    still = {"1.weight", "1.bias"} if "only" in asked else set()
    start = _torchs(data.spec, 0)
    for name, array in torchs.items():
        np.testing.assert_allclose(mine[name], array, rtol=1e-3, atol=1e-5)
        assert np.array_equal(mine[name], start[name]) == (name in still)


def test_one_step_of_the_lesson_is_torchs_within_float_error() -> None:
    training = TrainingConfig(local_steps=1)
    found = [_lesson(model, 1, training)[1] for model in (Mlp(), Alike())]
    for name, array in found[0].items():
        np.testing.assert_allclose(found[1][name], array, rtol=1e-4, atol=1e-6)


def test_three_rounds_of_the_lesson_are_torchs_within_a_point() -> None:
    accuracies = [_lesson(model, 3, TrainingConfig())[0] for model in (Mlp(), Alike())]
    assert accuracies[0] > 0.85
    assert abs(accuracies[0] - accuracies[1]) < 0.01


def _lesson(model: Model, rounds: int, training: TrainingConfig) -> tuple[float, Weights]:
    plain = Config()
    lesson = replace(
        small(model=model, rounds=rounds, training=training),
        dataset=Mnist5k(),
        partition=plain.partition,
        clients=plain.clients,
    )
    ending, _ = run(lesson)
    assert ending.weights is not None
    return float(ending.summary["final"]["all"]["accuracy"]), ending.weights


def test_the_page_conforms() -> None:
    conforms(JaxMlp(hidden=[8], dropout=0.3), ("inline",))


def test_every_backend_gives_the_same_bits() -> None:
    same_everywhere(small(model=JaxMlp(hidden=[8], dropout=0.3)), ("inline", "ray", "flower"))


def test_scaffold_trains_it() -> None:
    clients = ClientsConfig(num=3)
    ending, told = run(small(model=JaxMlp(hidden=[8]), strategy=Scaffold(), clients=clients))
    assert not told.failures
    assert ending.summary["rounds"] == 2


def test_dropout_is_drawn_anew_in_every_round_and_for_every_client(data: FederatedData) -> None:
    node = ClientNode(small(model=JaxMlp(dropout=0.5), training=SGD), lambda: data)
    start, examples = _torchs(data.spec, 0), data.train_examples([0])
    found = []
    for server_round, client in ((1, 0), (1, 1), (2, 0), (1, 0)):
        job = ClientJob(node, client, server_round, Order(start), {}, examples, 1)
        with node.trainer.turn(server_round, client):
            found.append(job.train())
    assert same_weights(found[0], found[3])
    assert not any(same_weights(found[0], other) for other in found[1:3])


def _random(task: str) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    if task == "next_token":
        targets = rng.integers(0, 5, (6, 4))
        targets[:, 2:][::2] = -100
        return rng.standard_normal((6, 4, 5)).astype(np.float32), targets
    if task == "classification":
        return rng.standard_normal((6, 5)).astype(np.float32), rng.integers(0, 5, 6)
    return rng.standard_normal((6, 2)).astype(np.float32), rng.standard_normal((6, 2))


@pytest.mark.parametrize("task", tasks.choices())
def test_losses_are_those_of_the_tasks(task: str) -> None:
    outputs, targets = _random(task)
    expected = tasks.get(task)().loss()(torch.tensor(outputs), torch.tensor(targets))
    counts = (np.arange(8) < 6).astype(np.float32)
    found = loss_of(task)(filled(outputs, 8), filled(targets, 8), counts)
    assert float(found) == pytest.approx(float(expected), rel=1e-6)


def test_a_regression_is_torchs() -> None:
    for dataset in (TinyNumbers(), TinyPairs()):
        experiment = small(model=JaxMlp(hidden=[8]), dataset=dataset)
        node = ClientNode(experiment, lambda e=experiment: federate(e))  # type: ignore[misc]
        examples, weights = node.data.train_examples([0]), node.trainer.initial()
        twin = ClientNode(replace(experiment, model=Mlp(hidden=[8])), node.source)
        told = [_after(one, weights, examples) for one in (node, twin)]
        for name, array in told[1].items():
            np.testing.assert_allclose(told[0][name], array, rtol=1e-3, atol=1e-5)


def _after(node: ClientNode, weights: Weights, examples: Any) -> Weights:
    with node.trainer.turn(1, 0):
        return ClientJob(node, 0, 1, Order(weights), {}, examples, 3).train()


def test_few_sizes_are_compiled() -> None:
    assert [rounded(n) for n in (1, 7, 8, 9, 10, 16, 50, 64, 100)] == [
        1,
        7,
        8,
        10,
        10,
        16,
        56,
        64,
        112,
    ]
    assert len({rounded(n) for n in range(1, 513)}) == 32
    assert all(n <= rounded(n) <= 1.25 * n for n in range(1, 2000))
