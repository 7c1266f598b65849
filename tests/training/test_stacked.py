"""Clients trained together end where each ends alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from support.helpers import same_weights
from torch import Tensor, nn

from fedexp.config.backend import InlineBackend
from fedexp.config.schema import Config
from fedexp.config.training import TrainingConfig
from fedexp.core.hooks import Loss, Rule
from fedexp.core.weights import Weights
from fedexp.data.examples import Examples, Spec
from fedexp.datasets import Dataset
from fedexp.datasets.cifar10 import Cifar10
from fedexp.datasets.mnist import Mnist
from fedexp.models import Model
from fedexp.models.cnn import Cnn
from fedexp.models.mlp import Mlp
from fedexp.models.two_nn import TwoNn
from fedexp.partitions.iid import Iid
from fedexp.training.device import clients_that_fit, gpu_left, limited_threads
from fedexp.training.loop import Work
from fedexp.training.network import Network
from fedexp.training.stacked import AloneError, Share, ensure_stackable
from fedexp.training.torch_trainer import TorchTrainer

CPU = torch.device("cpu")
SPEC = Spec((1, 8, 8), tuple("abc"), 1, 1)
SGD = TrainingConfig(batch_size=4, momentum=0.9, learning_rate=0.1, weight_decay=0.01)
DIGITS = Mnist()
SMALL = Mlp(hidden=[7])


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with limited_threads(1):  # as clients have it; results depend on it in the last bits
        yield


def _trainer(
    model: Model = SMALL,
    training: TrainingConfig = SGD,
    dataset: Dataset = DIGITS,
    spec: Spec = SPEC,
) -> TorchTrainer:
    config = Config(
        dataset=dataset, partition=Iid(), model=model, training=training, backend=InlineBackend()
    )
    return TorchTrainer(config, spec)


def _examples(client: int, num: int, spec: Spec = SPEC) -> Examples:
    rng = np.random.default_rng(client)
    images = rng.integers(0, 256, (num, *spec.shape), dtype=np.uint8)
    return Examples(images, rng.integers(0, spec.outputs, num))


def _moved(weights: Weights, by: int, much: float = 0.05) -> Weights:
    rng = np.random.default_rng(by)
    return {
        name: (array + much * rng.standard_normal(array.shape)).astype(array.dtype)
        for name, array in weights.items()
    }


def _shares(
    trainer: TorchTrainer,
    num: int = 10,
    clients: Sequence[int] = (0, 1, 2),
    steps: int = 7,
    spec: Spec = SPEC,
    **work: Any,
) -> list[Share]:
    """Return clients that start at different weights, and whose batches are of 4, 4 and 2."""
    start = trainer.initial()
    given = {key: value for key, value in work.items() if key not in ("toward", "correction")}
    shares = []
    for client in clients:
        own: dict[str, Any] = {key: _moved(start, 100 + client) for key in work if key not in given}
        todo = Work(steps, 0.1, **given, **own)
        order = torch.Generator().manual_seed(client)
        shares.append(Share(_moved(start, client), _examples(client, num, spec), todo, order))
    return shares


def _alone(trainer: TorchTrainer, share: Share) -> tuple[Weights, float]:
    return trainer.train(share.start, share.examples, share.work, share.order)


def _assert_as_alone(trainer: TorchTrainer, **how: Any) -> None:
    together, each = _shares(trainer, **how), _shares(trainer, **how)
    found = trainer.train_together(together)
    for (weights, loss), one, mine in zip(found, each, together, strict=True):
        expected, expected_loss = _alone(trainer, one)
        assert list(weights) == list(expected)
        for name, array in expected.items():
            assert weights[name].dtype == array.dtype
            scale = np.abs(array - one.start[name]).max() or 1.0  # of what training has moved
            assert np.abs(weights[name] - array).max() <= 1e-5 * max(scale, np.abs(array).max())
        assert loss == pytest.approx(expected_loss, rel=1e-5)
        # A second training goes on drawing orders where the first one stopped.
        assert torch.equal(mine.order.get_state(), one.order.get_state())


@pytest.mark.parametrize("model", [Mlp(hidden=[]), SMALL, TwoNn(), Cnn()], ids=lambda m: m.name)
def test_clients_end_where_each_ends_alone(model: Model) -> None:
    _assert_as_alone(_trainer(model))


def test_a_client_without_company_ends_where_it_ends_beside_others() -> None:
    trainer = _trainer(Cnn())
    (only,) = trainer.train_together(_shares(trainer, clients=[1]))
    beside = trainer.train_together(_shares(trainer))[1]
    assert same_weights(only[0], beside[0])
    assert only[1] == beside[1]


@pytest.mark.parametrize(
    "changes",
    [
        {"momentum": 0.0, "weight_decay": 0.0},
        {"optimizer": "adam"},
        {"optimizer": "adamw"},
        {"max_grad_norm": 0.5},
        {"batch_size": "full"},
    ],
    ids=str,
)
def test_optimizers_move_every_client_as_if_it_were_alone(changes: dict[str, Any]) -> None:
    _assert_as_alone(_trainer(training=replace(SGD, **changes)))


@pytest.mark.parametrize(
    "work",
    [
        {"pull": 0.5},
        {"pull": 0.5, "toward": True},
        {"correction": True},
        {"pull": 0.1, "toward": True, "correction": True},
        {"only": frozenset(["1.weight", "3.bias"])},
    ],
    ids="-".join,
)
def test_what_strategies_add_to_a_step_is_every_clients_own(work: dict[str, Any]) -> None:
    trainer = _trainer()
    assert {"1.weight", "3.bias"} <= set(trainer.parameters)
    _assert_as_alone(trainer, **work)


def test_varied_examples_are_varied_as_alone() -> None:
    spec = Spec((3, 8, 8), tuple("abc"), 1, 1)
    _assert_as_alone(_trainer(dataset=Cifar10(augment=True), spec=spec), spec=spec)


@pytest.mark.parametrize("model", [SMALL, Cnn()], ids=lambda m: m.name)
def test_mixed_precision_rounds_a_stack_and_nothing_more(
    monkeypatch: pytest.MonkeyPatch, model: Model
) -> None:
    trainer = _trainer(model)
    exact = trainer.train_together(_shares(trainer, steps=1))
    mixed = torch.autocast("cpu", torch.bfloat16)
    monkeypatch.setattr("fedexp.training.stacked.precision_of", lambda *_: mixed)
    other = _trainer(model)  # a process of its own tries its clients anew
    found = other.train_together(_shares(other, steps=1))
    for (weights, _), (expected, _), share in zip(found, exact, _shares(trainer), strict=True):
        for name, array in expected.items():
            moved = np.linalg.norm(array - share.start[name])
            assert 0 < np.linalg.norm(weights[name] - array) < 0.1 * moved


@pytest.mark.parametrize("model", [Mlp(hidden=[]), Cnn()], ids=lambda m: m.name)
@pytest.mark.parametrize("work", [{}, {"pull": 0.5, "correction": True}], ids=["plain", "adjusted"])
def test_a_clients_bits_depend_neither_on_the_others_nor_on_their_number(
    model: Model, work: dict[str, Any]
) -> None:
    trainer = _trainer(model, replace(SGD, max_grad_norm=1.0))
    whole = trainer.train_together(_shares(trainer, clients=range(7), steps=3, **work))
    for clients in ([6, 5, 4, 3, 2, 1, 0], [0, 3], [1, 2, 4], [5]):
        found = trainer.train_together(_shares(trainer, clients=clients, steps=3, **work))
        for client, (weights, loss) in zip(clients, found, strict=True):
            assert same_weights(weights, whole[client][0])
            assert loss == whole[client][1]


# --- who does equal work --------------------------------------------------------------------------


def _kind(num: int, steps: int, batch_size: int | str = 4, **work: Any) -> Any:
    share = Share({}, _examples(0, num), Work(steps, 0.1, **work), torch.Generator())
    return share.kind(replace(SGD, batch_size=batch_size))


def test_equal_work_is_as_many_steps_on_as_large_batches() -> None:
    assert _kind(10, 3) == _kind(10, 3)
    assert _kind(10, 3) != _kind(11, 3)  # the last batch
    assert _kind(10, 2) == _kind(100, 2)  # two batches of four, whatever else there is
    assert _kind(10, 2) != _kind(10, 1)
    assert _kind(10, 1, "full") != _kind(11, 1, "full")
    assert _kind(3, 1) != _kind(4, 1)


def test_equal_work_is_of_the_same_kind() -> None:
    plain = _kind(10, 2)
    weights = {"w": np.ones(1)}
    for work in (
        {"pull": 0.1},
        {"pull": 0.1, "toward": weights},
        {"correction": weights},
        {"only": frozenset("w")},
    ):
        assert _kind(10, 2, **work) == _kind(10, 2, **work) != plain
    assert _kind(10, 2, loss=Loss(lambda *_: torch.zeros(()))) is None
    assert _kind(10, 2, rule=Rule()) is None


# --- networks that must be trained alone ----------------------------------------------------------


class Remembering(nn.Module):
    """Keeps what it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x.mean()
        out: Tensor = self.layer(x.flatten(1))
        return out


class Looking(nn.Module):
    """Does one thing or another, as its inputs have it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x.flatten(1))
        return out if x.mean() > 0 else -out


class Averaged(nn.Module):
    """Holds a tensor that no gradient moves."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.mean = nn.Linear(64, 3), torch.zeros(3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x.flatten(1)) + self.mean
        return out


def _tied() -> nn.Module:
    first, second = nn.Linear(64, 64), nn.Linear(64, 64)
    second.weight = first.weight
    return nn.Sequential(nn.Flatten(), first, second)


@pytest.mark.parametrize(
    ("module", "why"),
    [
        (nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(64, 3)), "buffers"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.Dropout(0.5)), "random"),
        (_tied(), "share"),
        (Remembering(), "keeps or draws"),
        (Looking(), "cannot stack"),
        (Averaged(), "Averaged.mean"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_networks_that_are_trained_alone(module: nn.Module, why: str) -> None:
    network, trainer = Network(module, CPU), _trainer()
    start = network.weights()
    shares = [replace(share, start=start) for share in _shares(trainer)]
    before = [share.order.get_state() for share in shares]
    with pytest.raises(AloneError, match=why):
        ensure_stackable(network, shares, DIGITS, SGD, CPU)
    assert all(torch.equal(a, s.order.get_state()) for a, s in zip(before, shares, strict=True))


def test_a_gradient_that_is_nothing_but_rounding_is_no_obstacle() -> None:
    module = nn.Sequential(
        *(nn.Conv2d(1, 4, 3), nn.GroupNorm(4, 4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    )
    trainer = _trainer()
    trainer.network = Network(module, CPU)
    start = trainer.network.weights()
    shares = [replace(share, start=start) for share in _shares(trainer)]
    ensure_stackable(trainer.network, shares, DIGITS, SGD, CPU)


class Unused(nn.Module):
    """Has a head that nothing depends on, and a number that is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.slope, self.act = 0.5, torch.relu
        self.layer, self.head = nn.Linear(64, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.layer(x.flatten(1))) * self.slope


def test_a_layer_that_nothing_depends_on_stays_as_it_is() -> None:
    trainer = _trainer()
    trainer.network = Network(Unused(), CPU)
    start = trainer.network.weights()
    shares = [replace(share, start=start) for share in _shares(trainer)]
    for weights, _ in trainer.train_together(shares):
        assert np.array_equal(weights["head.weight"], start["head.weight"])
        assert not np.array_equal(weights["layer.weight"], start["layer.weight"])


def test_weights_of_another_model_are_refused() -> None:
    trainer = _trainer()
    trainer.train_together(_shares(trainer))
    shares = _shares(trainer)
    shares[1] = replace(shares[1], start={**shares[1].start, "1.bias": np.zeros(8, np.float32)})
    with pytest.raises(ValueError, match=r"1\.bias has shape"):
        trainer.train_together(shares)


# --- how many -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("free", "per_client", "fit"),
    [
        (1000, 10, 32),  # half of the memory has room for 50
        (1000, 1000, 1),
        (0, 10, 1),
        (10**12, 10, 64),
        (39, 10, 1),
        (40, 10, 2),
    ],
)
def test_half_of_the_free_memory_is_for_clients(free: int, per_client: int, fit: int) -> None:
    assert clients_that_fit(free, per_client) == fit


def test_a_cpu_trains_one_client_at_a_time_unless_told_otherwise() -> None:
    assert _trainer().at_once == 1


def test_the_first_client_on_a_gpu_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = _trainer()
    weights = sum(array.nbytes for array in trainer.initial().values())

    @contextmanager
    def peak(_: torch.device) -> Iterator[list[int]]:
        taken: list[int] = []
        yield taken
        taken.append(1000)

    def left(_: torch.device, share: float) -> int:
        assert share == 1.0
        return 2 * 9 * (1000 + weights)  # half of it has room for nine

    monkeypatch.setattr(trainer, "device", torch.device("cuda"))
    monkeypatch.setattr("fedexp.training.torch_trainer.peak_memory", peak)
    monkeypatch.setattr("fedexp.training.torch_trainer.gpu_left", left)
    assert trainer.at_once is None
    with trainer._sizing():
        pass
    assert trainer.at_once == 8


@pytest.mark.parametrize(
    ("share", "left"),
    [
        (1.0, 50),  # 40 that nobody has, and 10 that this process keeps for later
        (0.5, 30),  # 50 are its own, and it uses 20
        (0.1, 0),
    ],
)
def test_a_worker_takes_no_more_than_its_share(
    monkeypatch: pytest.MonkeyPatch, share: float, left: int
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (40, 100))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 30)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 20)
    assert gpu_left(torch.device("cuda"), share) == left


def test_too_little_memory_halves_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = _trainer()
    shares = _shares(trainer, clients=range(6))

    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr("fedexp.training.torch_trainer.train_stacked", full)
    monkeypatch.setattr(trainer, "device", torch.device("cuda"))
    monkeypatch.setattr("fedexp.training.torch_trainer.ensure_stackable", lambda *_: None)
    with pytest.raises(AloneError, match="memory"):
        trainer.train_together(shares)
    assert trainer.at_once == 3
