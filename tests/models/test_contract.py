"""The contract of a model: whatever plain PyTorch can train, fedexp trains to the same numbers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import ray
import torch
from support.helpers import config, same_weights
from torch import Tensor, nn
from torch.nn import functional as F

from fedexp.backends import inline
from fedexp.backends import ray as on_workers
from fedexp.config.backend import RayBackend
from fedexp.config.clients import ClientsConfig
from fedexp.config.schema import Config
from fedexp.config.training import TrainingConfig
from fedexp.core.roles import Order
from fedexp.core.seeding import derive_seed
from fedexp.core.weights import Weights, hash_weights
from fedexp.data.examples import Examples, Spec
from fedexp.data.federated import FederatedData
from fedexp.datasets import Dataset
from fedexp.federation.client import ClientNode
from fedexp.federation.dealing import federate
from fedexp.federation.evaluation import ServerEvaluation
from fedexp.federation.events import Listener
from fedexp.federation.job import ClientJob
from fedexp.federation.rounds import RoundLoop
from fedexp.federation.servers import build_server
from fedexp.flower.messages import Reply
from fedexp.models import Model
from fedexp.training.device import limited_threads
from fedexp.training.loop import num_steps
from fedexp.training.network import Network
from fedexp.training.torch_trainer import TorchTrainer

INPUTS, OUTPUTS = 6, 3


@dataclass(frozen=True)
class Points(Dataset):
    """Three clouds of points with six features."""

    facts = Spec((INPUTS,), ("a", "b", "c"), 48, 30)

    name: str = "points"

    def load(self) -> tuple[Examples, Examples]:
        rng = np.random.default_rng(0)
        targets = rng.integers(0, OUTPUTS, 78)
        inputs = rng.standard_normal((78, INPUTS)).astype(np.float32)
        inputs[np.arange(78), targets] += 1
        return Examples(inputs[:48], targets[:48]), Examples(inputs[48:], targets[48:])


class NonPersistentBuffer(nn.Module):
    """Centres its inputs by a mean that it keeps out of its state dict."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(INPUTS, OUTPUTS)
        self.register_buffer("mean", torch.zeros(INPUTS), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.mean.mul_(0.9).add_(x.mean(0), alpha=0.1)
        return self.linear(x - self.mean)  # type: ignore[no-any-return]


class ReplacedBuffers(nn.Module):
    """Puts other tensors in the place of its buffers instead of writing to them."""

    mean: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(INPUTS, OUTPUTS)
        self.register_buffer("mean", torch.zeros(INPUTS))
        self.register_buffer("scale", torch.ones(INPUTS), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
            self.scale = 0.9 * self.scale + 0.1 * x.std(0)
        return self.linear((x - self.mean) / self.scale)  # type: ignore[no-any-return]


class TiedWeights(nn.Module):
    """Two layers that share their weights, though not their biases."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(INPUTS, INPUTS), nn.Linear(INPUTS, INPUTS)
        self.second.weight = self.first.weight
        self.head = nn.Linear(INPUTS, OUTPUTS)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.first(x).relu()).relu())  # type: ignore[no-any-return]


class PlainTensor(nn.Module):
    """Scales its inputs by a tensor that is a plain attribute, and wears off."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(INPUTS, OUTPUTS)
        self.scale = torch.linspace(1, 2, INPUTS)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.scale *= 0.95
        return self.linear(x * self.scale)  # type: ignore[no-any-return]


class FrozenLayers(nn.Module):
    """A first layer that keeps its initial weights, and a bias of the second that does, too."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(INPUTS, 8), nn.Linear(8, OUTPUTS)
        self.first.requires_grad_(False)
        self.second.bias.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu())  # type: ignore[no-any-return]


class UnusedHead(nn.Module):
    """Two heads, one of which nobody asks."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.other = nn.Linear(INPUTS, OUTPUTS), nn.Linear(INPUTS, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x)  # type: ignore[no-any-return]


class Dropout(nn.Module):
    """A hidden layer, half of which is dropped."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(INPUTS, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, OUTPUTS)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)  # type: ignore[no-any-return]


class Counting(nn.Module):
    """Counts its calls in a number, and keeps a list of what it has seen; both change what it does."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(INPUTS, OUTPUTS)
        self.calls = 0
        self.seen: list[float] = []

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.calls += 1
            self.seen.append(float(x.abs().mean()))
            self.later = len(self.seen)  # an attribute that was not there before
        return self.linear(x) * (1 + 0.1 * self.calls + sum(self.seen[-3:]))  # type: ignore[no-any-return]


class Clock:
    """A number that several modules look at."""

    def __init__(self) -> None:
        self.time = 0


class Timed(nn.Module):
    """A layer that grows with the time."""

    def __init__(self, inputs: int, outputs: int, clock: Clock) -> None:
        super().__init__()
        self.linear, self.clock = nn.Linear(inputs, outputs), clock

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) * (1 + 0.1 * self.clock.time)  # type: ignore[no-any-return]


class SharedClock(nn.Module):
    """Two layers and the network itself look at one clock, which the network advances."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.first, self.second = Timed(INPUTS, 8, self.clock), Timed(8, OUTPUTS, self.clock)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.clock.time += 1
        return self.second(self.first(x).relu())  # type: ignore[no-any-return]


class OwnGenerator(nn.Module):
    """Adds noise from a generator of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(INPUTS, OUTPUTS)
        self.chance = torch.Generator().manual_seed(3)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            x = x + torch.randn(x.shape, generator=self.chance)
        return self.linear(x)  # type: ignore[no-any-return]


class Lazy(nn.Module):
    """Layers that learn their width from the first batch."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.LazyLinear(OUTPUTS))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)  # type: ignore[no-any-return]


class ListedLayers(nn.Module):
    """Goes through its layers by a plain list, a dictionary and a bound method."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(INPUTS, 8), nn.Linear(8, OUTPUTS)
        self.order = [self.first, self.second]
        self.named, self.weights = {"last": self.second}, {"first": self.first.weight}
        self.step = self._step

    def _step(self, x: Tensor) -> Tensor:
        return (x @ self.weights["first"].T + self.order[0].bias).relu()

    def forward(self, x: Tensor) -> Tensor:
        return self.named["last"](self.step(x))  # type: ignore[no-any-return]


class SometimesUsed(nn.Module):
    """A layer that is used from the third step on, and then in every other step."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.extra = nn.Linear(INPUTS, OUTPUTS), nn.Linear(INPUTS, OUTPUTS)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        logits = self.linear(x)
        used = self.calls >= 3 and self.calls % 2
        return logits + self.extra(x) if used else logits  # type: ignore[no-any-return]


class BatchNorm(nn.Module):
    """Running statistics and a counter in the state dict."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(INPUTS, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, OUTPUTS)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)  # type: ignore[no-any-return]


class StartsInEvaluation(nn.Module):
    """A part that was put out of training mode when the network was built, as pretrained ones are."""

    def __init__(self) -> None:
        super().__init__()
        self.part, self.head = nn.Dropout(0.5), nn.Linear(INPUTS, OUTPUTS)
        self.part.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.part(x))  # type: ignore[no-any-return]


class OtherStrides(nn.Module):
    """The gradients of its parameters lie in memory in other ways than the parameters do."""

    def __init__(self) -> None:
        super().__init__()
        self.mixed = nn.Parameter(torch.randn(5, 4, INPUTS) * 0.3)
        self.turned = nn.Parameter(torch.randn(OUTPUTS, 5) * 0.3)
        self.summed = nn.Parameter(torch.randn(40) * 0.3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.einsum("bi,oki->bok", x, self.mixed).relu().mean(2)
        return torch.einsum("bi,ji->bj", hidden, self.turned) * self.summed.sum().tanh()


class ChannelsLast(nn.Module):
    """A convolution of inputs whose channels come last in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.head = nn.Conv2d(3, 4, (1, 2)), nn.Linear(4, OUTPUTS)

    def forward(self, x: Tensor) -> Tensor:
        images = x.view(-1, 1, 2, 3).permute(0, 3, 1, 2)
        return self.head(self.convolution(images).flatten(1).relu())  # type: ignore[no-any-return]


class SharedGradient(nn.Module):
    """Weights that are the sum of two parameters, whose gradients are one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.common = nn.Parameter(torch.randn(OUTPUTS, INPUTS) * 0.3)
        self.own = nn.Parameter(torch.randn(OUTPUTS, INPUTS) * 0.3)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.common + self.own)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    network.__name__: network
    for network in (
        NonPersistentBuffer,
        TiedWeights,
        PlainTensor,
        FrozenLayers,
        UnusedHead,
        Dropout,
        Counting,
        SharedClock,
        OwnGenerator,
        Lazy,
        ListedLayers,
        SometimesUsed,
        BatchNorm,
        StartsInEvaluation,
        ReplacedBuffers,
        OtherStrides,
        ChannelsLast,
        SharedGradient,
    )
}
EVERY = pytest.mark.parametrize("name", NETWORKS)


@dataclass(frozen=True)
class Chosen(Model):
    """One of the networks above."""

    name: str = "chosen"
    network: str = "Dropout"

    def build(self, spec: Spec) -> nn.Module:
        return NETWORKS[self.network]()


SGD = TrainingConfig(
    local_epochs=3, batch_size=6, learning_rate=0.1, momentum=0.9, weight_decay=0.05
)
ADAM = replace(SGD, optimizer="adam", learning_rate=0.02)
OPTIMIZERS = pytest.mark.parametrize("training", [SGD, ADAM], ids=["sgd", "adam"])
# Three steps an epoch: the 11th is the second of the fourth epoch.
BROKEN_OFF = replace(SGD, local_steps=11)


def _experiment(name: str, training: TrainingConfig = SGD, **changes: Any) -> Config:
    parts: dict[str, Any] = {
        "dataset": Points(),
        "model": Chosen(network=name),
        "training": training,
        "rounds": 1,
    }
    return config(**{**parts, **changes})


DATA = federate(_experiment("Dropout"))  # 16 examples for each of three clients


def _node(experiment: Config) -> ClientNode:
    return ClientNode(experiment, lambda: DATA)


def _state(module: nn.Module) -> Weights:
    return {name: value.numpy().copy() for name, value in module.state_dict().items()}


class Plain:
    """A network in plain PyTorch: built, initialised and trained as a tutorial would."""

    def __init__(self, name: str, seed: int = 0) -> None:
        self.seed = seed
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(seed, "init"))
            self.module = NETWORKS[name]()
            if name == "Lazy":
                self.module.eval()
                self.module(torch.zeros(2, INPUTS))
        self.start = _state(self.module)

    def train(
        self,
        training: TrainingConfig,
        data: FederatedData,
        client: int = 0,
        server_round: int = 1,
        adjust: Callable[[nn.Module], None] = lambda module: None,
    ) -> float:
        """Train on one client's examples, and return the mean loss of the last epoch."""
        self.module.train()
        examples = data.train_examples([client])
        batches = self._batches(training, examples, client, server_round)
        optimizer = self._optimizer(training)
        losses: list[tuple[int, float, int]] = []
        with torch.random.fork_rng(), limited_threads(1):
            torch.manual_seed(derive_seed(self.seed, "model", server_round, client))
            for _, (epoch, x, y) in zip(
                range(num_steps(training, len(examples))), batches, strict=False
            ):
                optimizer.zero_grad()
                loss = F.cross_entropy(self.module(x), y)
                loss.backward()
                adjust(self.module)
                optimizer.step()
                losses.append((epoch, loss.item(), len(y)))
        last = [(loss, size) for epoch, loss, size in losses if epoch == losses[-1][0]]
        return sum(loss * size for loss, size in last) / sum(size for _, size in last)

    def _batches(
        self, training: TrainingConfig, examples: Examples, client: int, server_round: int
    ) -> Iterator[tuple[int, Tensor, Tensor]]:
        generator = torch.Generator()
        generator.manual_seed(derive_seed(self.seed, "train", server_round, client))
        inputs, targets = torch.from_numpy(examples.inputs), torch.from_numpy(examples.targets)
        for epoch in range(1_000):
            order = torch.randperm(len(targets), generator=generator)
            for batch in order.split(int(training.batch_size)):
                yield epoch, inputs[batch], targets[batch]

    def _optimizer(self, training: TrainingConfig) -> torch.optim.Optimizer:
        weights, decay = self.module.parameters(), training.weight_decay
        rate, momentum = training.learning_rate, training.momentum
        if training.optimizer == "adam":
            return torch.optim.Adam(weights, rate, (momentum, 0.999), weight_decay=decay)
        return torch.optim.SGD(weights, rate, momentum, weight_decay=decay)


def _assert_close(found: Weights, expected: Weights) -> None:
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-5, err_msg=name)


def _assert_like(reply: Reply, loss: float, plain: Plain) -> None:
    assert reply.loss == pytest.approx(loss, rel=1e-4)
    assert reply.weights is not None
    _assert_close(reply.weights, _state(plain.module))


@EVERY
@OPTIMIZERS
def test_a_client_trains_as_plain_pytorch_does(name: str, training: TrainingConfig) -> None:
    experiment, plain = _experiment(name, training), Plain(name)
    reply = _node(experiment).train(0, 1, Order(plain.start), {})
    loss = plain.train(training, DATA)
    assert reply.num_examples == 16
    _assert_like(reply, loss, plain)


@EVERY
def test_initial_weights_are_what_the_seed_draws(name: str) -> None:
    before = torch.get_rng_state()
    for seed in (0, 7):
        experiment = replace(_experiment(name), seed=seed)
        evaluation = ServerEvaluation(experiment, DATA)
        assert same_weights(evaluation.initial, Plain(name, seed).start)
        assert same_weights(_node(experiment).trainer.initial(), Plain(name, seed).start)
    assert torch.equal(torch.get_rng_state(), before)


@EVERY
def test_what_others_did_in_the_process_before_does_not_matter(name: str) -> None:
    experiment = _experiment(name)
    order = Order(Plain(name).start)

    def trained(node: ClientNode, client: int = 0, server_round: int = 1) -> str:
        reply = node.train(client, server_round, order, {})
        assert reply.weights is not None
        return hash_weights(reply.weights)

    chance = torch.get_rng_state()
    fresh, other = trained(_node(experiment)), _node(experiment)
    tested = other.evaluate(0, 1, order, {}).numbers
    elsewhere = [trained(other, 1), trained(other, 2), trained(other, 0, server_round=2)]
    assert trained(other) == fresh
    other.evaluate(1, 1, order, {})
    assert trained(other) == fresh
    assert other.evaluate(0, 1, order, {}).numbers == tested
    assert fresh not in elsewhere
    assert torch.equal(torch.get_rng_state(), chance)


@EVERY
def test_a_training_that_breaks_off_in_the_middle_of_an_epoch(name: str) -> None:
    experiment, plain = _experiment(name, BROKEN_OFF), Plain(name)
    reply = _node(experiment).train(2, 3, Order(plain.start), {})
    loss = plain.train(BROKEN_OFF, DATA, client=2, server_round=3)
    _assert_like(reply, loss, plain)


@EVERY
def test_clipping_is_plain_pytorchs(name: str) -> None:
    training, plain = replace(SGD, max_grad_norm=0.05), Plain(name)
    experiment = _experiment(name, training)

    def clip(module: nn.Module) -> None:
        nn.utils.clip_grad_norm_(module.parameters(), 0.05)

    reply = _node(experiment).train(0, 1, Order(plain.start), {})
    loss = plain.train(training, DATA, adjust=clip)
    _assert_like(reply, loss, plain)


@EVERY
def test_what_is_added_to_gradients_is_added_once(name: str) -> None:
    """Pull and correction act on every parameter that moves, also on one without a gradient."""
    training = replace(SGD, local_epochs=1, weight_decay=0.0)
    experiment, plain = _experiment(name, training), Plain(name)
    node, order = _node(experiment), Order(plain.start)
    examples = node.data.train_examples([0])
    job = ClientJob(node, 0, 1, order, {}, examples, 3)
    toward = {k: np.full_like(a, 0.5) for k, a in order.weights.items()}
    correction = {k: np.full_like(order.weights[k], 0.25) for k in job.parameters}
    with node.trainer.turn(1, 0):
        found = job.train(pull=0.1, toward=toward, correction=correction)

    def add(module: nn.Module) -> None:
        for parameter in module.parameters():
            if parameter.requires_grad:
                given = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad = given + 0.1 * (parameter.detach() - 0.5) + 0.25

    plain.train(training, DATA, adjust=add)
    _assert_close(found, _state(plain.module))


def _final(experiment: Config, backend: ModuleType = inline) -> Weights:
    """Run an experiment end to end but for its conclusion, and return the final weights."""
    data = federate(experiment)
    evaluation = ServerEvaluation(experiment, data)
    server = build_server(experiment, evaluation)
    loop = RoundLoop(experiment, server, evaluation, Listener())
    backend.run(experiment, data, loop.run)
    assert loop.outcome.rounds == experiment.rounds
    return loop.outcome.weights


@EVERY
def test_a_round_is_the_mean_of_plain_trainings(name: str) -> None:
    expected: Weights = {}
    for client in range(3):
        plain = Plain(name)
        plain.train(SGD, DATA, client)
        for key, array in _state(plain.module).items():
            expected[key] = expected.get(key, 0) + array / 3  # 16 examples each
    found = _final(_experiment(name))
    assert list(found) == list(expected)
    for key, array in expected.items():
        np.testing.assert_allclose(found[key], array, rtol=1e-4, atol=1e-5, err_msg=key)


@pytest.mark.slow  # Ray starts
@EVERY
def test_two_workers_change_no_bit(name: str) -> None:
    clients = ClientsConfig(num=4, fraction_evaluate=1.0)
    experiment = _experiment(name, rounds=3, clients=clients)
    on_ray = replace(experiment, backend=RayBackend(workers=2))
    assert same_weights(_final(experiment), _final(on_ray, on_workers))


def test_state_names_what_is_trained_and_what_is_not() -> None:
    def network(name: str) -> Network:
        trainer = _node(_experiment(name)).trainer
        assert isinstance(trainer, TorchTrainer)
        return trainer.network

    tied = network("TiedWeights")
    assert list(tied.weights()) == [
        *("first.weight", "first.bias", "second.weight", "second.bias"),
        *("head.weight", "head.bias"),
    ]
    assert "second.weight" not in tied.parameters
    assert len(tied.parameters) == 5
    assert tied.buffers == tied.frozen == frozenset()
    assert network("FrozenLayers").frozen == {"first.weight", "first.bias", "second.bias"}
    assert list(network("FrozenLayers").parameters) == ["second.weight"]
    assert network("NonPersistentBuffer").buffers == frozenset()
    assert network("BatchNorm").buffers == {
        f"layers.1.{what}" for what in ("running_mean", "running_var", "num_batches_tracked")
    }
    assert list(network("Lazy").weights())[:2] == ["layers.0.weight", "layers.0.bias"]


# Ray's workers cannot import this module, so what is sent to them carries its code along.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
