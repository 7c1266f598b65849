from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fedexp import tasks
from fedexp.config.backend import FlowerBackend, InlineBackend, RayBackend
from fedexp.config.training import TrainingConfig
from fedexp.core.weights import hash_weights
from fedexp.data.augment import augment
from fedexp.data.examples import Examples, Spec
from fedexp.data.loading import load
from fedexp.datasets import Dataset, ImageDataset
from fedexp.datasets.mnist import Mnist
from fedexp.datasets.mnist5k import Mnist5k
from fedexp.models.mlp import Mlp
from fedexp.strategies.base import gradient_mass
from fedexp.training.device import limited_threads, pick_device
from fedexp.training.evaluator import Evaluator
from fedexp.training.loop import Work, num_steps, train, union_steps
from fedexp.training.network import Network, build_network

CPU = torch.device("cpu")
DIGITS = Mnist5k()


@dataclass(frozen=True)
class Pixel(ImageDataset):
    """One pixel, two classes, no normalisation but the division by 255."""

    facts = Spec((1, 1, 1), ("dark", "bright"), 2, 2)
    mean = (0.0,)
    std = (1.0,)

    name: str = "pixel"


TASK = tasks.of(Pixel())


@dataclass(frozen=True)
class Wandering(ImageDataset):
    """Four pixels, cropped at random after padding by one."""

    facts = Spec((1, 2, 2), ("dark", "bright"), 1, 1)

    name: str = "wandering"

    def vary(self, batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return augment(batch, generator, padding=1, flip=False)


def _pixels(values: list[int], labels: list[int]) -> Examples:
    images = np.array(values, dtype=np.uint8).reshape(-1, 1, 1, 1)
    return Examples(images, np.array(labels))


def _train(
    module: nn.Module | Network,
    examples: Examples,
    config: TrainingConfig,
    seed: int = 0,
    dataset: Dataset = Pixel(),
    **work: Any,
) -> float:
    """Train, for as many steps as a round has unless told otherwise, and return the loss."""
    network = module if isinstance(module, Network) else Network(module, CPU)
    asked = {"steps": num_steps(config, len(examples)), "learning_rate": config.learning_rate}
    generator = torch.Generator().manual_seed(seed)
    return train(
        network,
        network.parameters,
        examples,
        dataset,
        config,
        Work(**{**asked, **work}),
        generator,
        CPU,
    )


def _mlp() -> Network:
    return build_network(Mlp(), DIGITS.spec, 0, CPU, DIGITS.prepare)


class Linear(nn.Module):
    """Two logits, each the pixel times a weight that starts at 0."""

    def __init__(self, first: float = 0.0, second: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([first, second]))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1) * self.weight


def test_two_steps_with_momentum_by_hand() -> None:
    model = Linear()
    config = TrainingConfig(local_epochs=2, batch_size=2, learning_rate=0.5, momentum=0.9)
    loss = _train(model, _pixels([255, 255], [0, 0]), config)
    # Step 1: p = (1/2, 1/2), gradient (-1/2, 1/2), w = (1/4, -1/4).
    # Step 2: p0 = 1 / (1 + exp(-1/2)), gradient (p0 - 1, 1 - p0), velocity 0.9 * (-1/2) + p0 - 1.
    p0 = 1 / (1 + math.exp(-0.5))
    expected = 0.25 - 0.5 * (0.9 * -0.5 + p0 - 1)
    assert model.weight.tolist() == pytest.approx([expected, -expected])
    # The loss is the last epoch's, before its step.
    assert loss == pytest.approx(-math.log(p0))


def test_the_loss_weighs_a_short_batch_by_its_images() -> None:
    config = TrainingConfig(local_epochs=1, batch_size=2, learning_rate=1e-12, momentum=0)
    loss = _train(Linear(), _pixels([255, 255, 0], [0, 1, 1]), config)
    assert loss == pytest.approx(math.log(2))  # all weights are zero


def test_weight_decay_by_hand() -> None:
    model = Linear(2.0, 2.0)
    config = TrainingConfig(
        local_epochs=1, batch_size=1, learning_rate=0.5, momentum=0, weight_decay=0.1
    )
    _train(model, _pixels([0], [0]), config)
    # A black pixel has no gradient; 2 - 0.5 * 0.1 * 2.
    assert model.weight.tolist() == pytest.approx([1.9, 1.9])


def test_normalisation_is_the_lessons() -> None:
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1)
    found = DIGITS.prepare(pixels).flatten().tolist()
    assert found == pytest.approx([-1.0, -0.6, 1.0])


def _trained(seed: int) -> str:
    examples, network = load(DIGITS)[1].subset(np.arange(100)), _mlp()
    with limited_threads(1):
        _train(network, examples, TrainingConfig(local_epochs=2), seed, DIGITS)
    return hash_weights(network.weights())


def test_the_seed_decides_every_bit_and_no_global_state_is_touched() -> None:
    before, numpy_before = torch.get_rng_state(), repr(np.random.get_state())  # noqa: NPY002
    one, again, other = _trained(1), _trained(1), _trained(2)
    assert one == again != other
    assert torch.equal(torch.get_rng_state(), before)
    assert repr(np.random.get_state()) == numpy_before  # noqa: NPY002


def test_augmentation_comes_before_normalisation_and_from_the_seed() -> None:
    seen: list[torch.Tensor] = []

    class Watcher(nn.Linear):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(images.clone())
            return super().forward(images.flatten(1))

    examples = Examples(np.full((200, 1, 2, 2), 255, np.uint8), np.zeros(200, np.int64))
    config = TrainingConfig(local_epochs=1, batch_size=100)
    for seed in (1, 1, 2):
        _train(Watcher(4, 2), examples, config, seed, Wandering())
    one, again, other = (torch.cat(seen[k : k + 2]) for k in (0, 2, 4))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    # Padding is black, -1 once it is normalised; white is +1. One place of nine shows no padding.
    assert set(one.unique().tolist()) == {-1.0, 1.0}
    whole = (one == 1).flatten(1).all(1).sum().item()
    assert 5 <= whole <= 45  # 22 on average


def test_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    with limited_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_evaluation_by_hand() -> None:
    found = Evaluator(_pixels([255, 255], [0, 1]), TASK, Pixel().prepare, CPU).predict(
        Linear(1.0, 0.0)
    )
    assert found.labels.tolist() == [0, 0]
    # Logits (1, 0): -log softmax is log(1 + e^-1) and log(1 + e).
    expected = [math.log(1 + math.exp(-1)), math.log(1 + math.e)]
    assert found.losses.tolist() == pytest.approx(expected)
    assert found.losses.dtype == np.float64
    assert found.targets.tolist() == [0, 1]
    assert found.probabilities is None


def test_probabilities_are_there_where_they_are_asked_for() -> None:
    evaluator = Evaluator(
        _pixels([255, 0], [0, 1]), TASK, Pixel().prepare, CPU, parallel=1, probabilities=True
    )
    found = evaluator.predict(Linear(1.0, 0.0)).probabilities
    assert found is not None
    sure = math.e / (1 + math.e)  # logits (1, 0), then (0, 0)
    assert found.ravel().tolist() == pytest.approx([sure, 1 - sure, 0.5, 0.5])
    assert found.dtype == np.float64


def test_a_model_is_trained_in_its_training_mode_and_judged_out_of_it() -> None:
    model = nn.Sequential(nn.Dropout(0.5), Linear(1.0, 0.0))
    evaluator = Evaluator(_pixels([255] * 64, [0] * 64), TASK, Pixel().prepare, CPU)
    # Nothing is dropped: every image has the loss that one alone would have.
    assert evaluator.predict(model).losses.tolist() == pytest.approx(
        [math.log(1 + 1 / math.e)] * 64
    )
    assert not model.training
    _train(model, _pixels([255], [0]), TrainingConfig(local_epochs=1))
    assert model.training


@pytest.mark.parametrize("parallel", [2, 4])
def test_evaluation_does_not_depend_on_how_many_batches_run_at_once(parallel: int) -> None:
    examples, model = load(DIGITS)[0], _mlp().module
    with limited_threads(1):
        alone, together = (
            Evaluator(examples, TASK, DIGITS.prepare, CPU, count, probabilities=True).predict(model)
            for count in (1, parallel)
        )
    assert alone.losses.tobytes() == together.losses.tobytes()
    assert alone.labels.tolist() == together.labels.tolist()
    assert alone.probabilities is not None
    assert together.probabilities is not None
    assert alone.probabilities.tobytes() == together.probabilities.tobytes()
    assert len(alone) == len(alone.labels) == 4_000


def test_a_ray_worker_takes_no_gpu_that_is_not_reserved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)  # and as it was, later
    assert pick_device(RayBackend()).type == "cpu"
    assert pick_device(RayBackend(num_gpus_per_worker=0.5)).type == "cuda"
    assert pick_device(FlowerBackend()).type == "cpu"
    assert pick_device(InlineBackend()).type == "cuda"
    assert pick_device(InlineBackend(device="cpu")).type == "cpu"


def test_a_process_that_computes_on_a_gpu_uses_algorithms_that_repeat_their_bits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    pick_device(InlineBackend(device="cpu"))
    assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark) == (False, True)
    pick_device(InlineBackend(device="cuda"))
    assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark) == (True, False)


def test_mnist_pixels_reach_the_model_as_they_are(mnist_root: Path) -> None:
    train_set, test_set = load(Mnist(root=str(mnist_root)))
    assert (train_set.inputs.shape, test_set.inputs.shape) == (
        (60_000, 1, 28, 28),
        (10_000, 1, 28, 28),
    )
    assert train_set.inputs.dtype == np.uint8
    assert train_set.inputs.max() == 255


def _step(config: TrainingConfig, **work: Any) -> float:
    """Take steps on one white image of label 0 and return the first weight; the other is its negative."""
    model = Linear()
    asked: dict[str, Any] = {"steps": 1, "learning_rate": 0.5, **work}
    _train(model, _pixels([255], [0]), config, **asked)
    first, second = model.weight.tolist()
    assert second == pytest.approx(-first)
    return float(first)


PLAIN = TrainingConfig(batch_size=1, momentum=0)


def test_gradient_clipping_by_hand() -> None:
    # The gradient is (-1/2, 1/2), of norm sqrt(1/2).
    assert _step(PLAIN) == pytest.approx(0.25)
    clipped = TrainingConfig(batch_size=1, momentum=0, max_grad_norm=0.1)
    assert _step(clipped) == pytest.approx(0.5 * 0.1 / math.sqrt(2), rel=1e-4)
    loose = TrainingConfig(batch_size=1, momentum=0, max_grad_norm=9.0)
    assert _step(loose) == pytest.approx(0.25)


def test_the_proximal_term_by_hand() -> None:
    # Step 1 starts where it is pulled to; step 2 adds mu (0.25 - 0) to the gradient p0 - 1.
    p0 = 1 / (1 + math.exp(-0.5))
    expected = 0.25 - 0.5 * (p0 - 1 + 0.8 * 0.25)
    assert _step(PLAIN, steps=2, pull=0.8) == pytest.approx(expected)


def test_weights_are_pulled_to_where_one_says() -> None:
    # The gradient is (-1/2, 1/2) and 0.8 times the way from (1/4, -1/4) to (0, 0).
    toward = {"weight": np.array([0.25, -0.25], dtype=np.float32)}
    assert _step(PLAIN, pull=0.8, toward=toward) == pytest.approx(0.25 + 0.5 * 0.8 * 0.25)
    assert toward["weight"].tolist() == [0.25, -0.25]


def test_a_correction_is_added_to_every_gradient() -> None:
    correction = {"weight": np.array([0.1, -0.1], dtype=np.float32)}
    assert _step(PLAIN, correction=correction) == pytest.approx(0.25 - 0.5 * 0.1)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adam_by_hand(name: str) -> None:
    config = TrainingConfig(batch_size=1, optimizer=name, momentum=0.8, weight_decay=0.1)
    # Kingma and Ba's algorithm 1; AdamW takes the weight decay off the weight, Adam adds it to the
    # gradient.
    w = m = v = 0.0
    for t in (1, 2, 3):
        gradient = 1 / (1 + math.exp(-2 * w)) - 1 + (0.1 * w if name == "adam" else 0)
        m, v = 0.8 * m + 0.2 * gradient, 0.999 * v + 0.001 * gradient**2
        w *= 1 - 0.05 * 0.1 if name == "adamw" else 1
        w -= 0.05 * (m / (1 - 0.8**t)) / (math.sqrt(v / (1 - 0.999**t)) + 1e-8)
    assert _step(config, steps=3, learning_rate=0.05) == pytest.approx(w, rel=1e-5)


def test_steps_of_a_round() -> None:
    assert num_steps(TrainingConfig(local_epochs=3, batch_size=10), 25) == 9
    assert num_steps(TrainingConfig(local_epochs=3, batch_size="full"), 25) == 3
    assert num_steps(TrainingConfig(local_steps=7, batch_size=10), 25) == 7


def test_mixed_precision_is_for_gpus_alone() -> None:
    seen: list[torch.dtype] = []

    class Watcher(nn.Linear):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logits = super().forward(images.flatten(1))
            seen.append(logits.dtype)
            return logits

    _train(Watcher(1, 2), _pixels([255], [0]), TrainingConfig(local_epochs=1, amp=True))
    assert seen == [torch.float32]


def test_steps_of_a_union_are_those_of_its_clients() -> None:
    # 25 images of two clients: three epochs of three batches, or twice seven steps.
    assert union_steps(TrainingConfig(local_epochs=3, batch_size=10), 25, 2) == 9
    assert union_steps(TrainingConfig(local_steps=7, batch_size=10), 25, 2) == 14


def test_the_learning_rate_decays_by_rounds() -> None:
    config = TrainingConfig(learning_rate=0.4, learning_rate_decay=0.5)
    assert [config.rate(k) for k in (1, 2, 3)] == [0.4, 0.2, 0.1]


def test_gradient_mass_by_hand() -> None:
    assert gradient_mass(5, 0.0) == 5
    # Gradient 1 of 2 counts 1 + 0.9 times, gradient 2 once.
    assert gradient_mass(2, 0.9) == pytest.approx(2.9)
