from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fedexp.datasets.options import DATASET_SPECS, Augmentation
from fedexp.models.networks import build_model, initial_weights
from torch import nn

from fedexp.config.backend import BackendConfig, RayBackend
from fedexp.config.training import TrainingConfig
from fedexp.core.weights import hash_weights
from fedexp.data.examples import Examples, Spec
from fedexp.data.loading import load_dataset
from fedexp.datasets import Dataset
from fedexp.models.mlp import Mlp
from fedexp.strategies.base import gradient_mass
from fedexp.training.device import limited_threads, pick_device
from fedexp.training.evaluator import Evaluator
from fedexp.training.loop import TrainResult, Work, normaliser, num_steps, train, union_steps
from fedexp.training.network import get_weights, set_weights
from fedexp.training.optimizers import gradient_function

SPEC = DATASET_SPECS["mnist5k"]
CPU = torch.device("cpu")
# One pixel, two classes, no normalisation but the division by 255.
PIXEL = Spec((1, 1, 1), ("dark", "bright"), 2, 2, (0.0,), (1.0,))


def _pixels(values: list[int], labels: list[int]) -> Examples:
    images = np.array(values, dtype=np.uint8).reshape(-1, 1, 1, 1)
    return Examples(images, np.array(labels))


def _train(
    model: nn.Module,
    examples: Examples,
    config: TrainingConfig,
    seed: int = 0,
    spec: Spec = PIXEL,
) -> TrainResult:
    steps = num_steps(config, len(examples.labels))
    work = Work(steps, config.learning_rate)
    return train(model, examples, spec, config, work, seed, CPU)


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
    result = _train(model, _pixels([255, 255], [0, 0]), config)
    # Step 1: p = (1/2, 1/2), gradient (-1/2, 1/2), w = (1/4, -1/4).
    # Step 2: p0 = 1 / (1 + exp(-1/2)), gradient (p0 - 1, 1 - p0), velocity 0.9 * (-1/2) + p0 - 1.
    p0 = 1 / (1 + math.exp(-0.5))
    expected = 0.25 - 0.5 * (0.9 * -0.5 + p0 - 1)
    assert model.weight.tolist() == pytest.approx([expected, -expected])
    # The loss is the last epoch's, before its step.
    assert result.loss == pytest.approx(-math.log(p0))
    assert result.num_examples == 2


def test_the_loss_weighs_a_short_batch_by_its_images() -> None:
    config = TrainingConfig(local_epochs=1, batch_size=2, learning_rate=1e-12, momentum=0)
    result = _train(Linear(), _pixels([255, 255, 0], [0, 1, 1]), config)
    assert result.loss == pytest.approx(math.log(2))  # all weights are zero


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
    found = normaliser(SPEC, CPU)(pixels).flatten().tolist()
    assert found == pytest.approx([-1.0, -0.6, 1.0])


def _trained(seed: int) -> str:
    examples = load_dataset(Dataset())[1].subset(np.arange(100))
    model = build_model(Mlp(), SPEC)
    set_weights(model.state_dict(), initial_weights(Mlp(), SPEC, 0))
    with limited_threads(1):
        _train(model, examples, TrainingConfig(local_epochs=2), seed, SPEC)
    return hash_weights(get_weights(model.state_dict()))


def test_the_seed_decides_every_bit_and_no_global_state_is_touched() -> None:
    before, numpy_before = torch.get_rng_state(), repr(np.random.get_state())  # noqa: NPY002
    one, again, other = _trained(1), _trained(1), _trained(2)
    assert one == again != other
    assert torch.equal(torch.get_rng_state(), before)
    assert repr(np.random.get_state()) == numpy_before  # noqa: NPY002


def test_augmentation_comes_before_normalisation_and_from_the_seed() -> None:
    spec = Spec((1, 2, 2), ("dark", "bright"), 1, 1, (0.5,), (0.5,))
    seen: list[torch.Tensor] = []

    class Watcher(nn.Linear):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(images.clone())
            return super().forward(images.flatten(1))

    examples = Examples(np.full((200, 1, 2, 2), 255, np.uint8), np.zeros(200, np.int64))
    config = TrainingConfig(local_epochs=1, batch_size=100)
    for seed in (1, 1, 2):
        work = Work(2, config.learning_rate)
        changes = Augmentation(padding=1, flip=False)
        train(Watcher(4, 2), examples, spec, config, work, seed, CPU, changes)
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
    found = Evaluator(_pixels([255, 255], [0, 1]), PIXEL, CPU).predict(Linear(1.0, 0.0))
    assert found.labels.tolist() == [0, 0]
    # Logits (1, 0): -log softmax is log(1 + e^-1) and log(1 + e).
    expected = [math.log(1 + math.exp(-1)), math.log(1 + math.e)]
    assert found.losses.tolist() == pytest.approx(expected)


def test_a_model_is_trained_in_its_training_mode_and_judged_out_of_it() -> None:
    model = nn.Sequential(nn.Dropout(0.5), Linear(1.0, 0.0))
    evaluator = Evaluator(_pixels([255] * 64, [0] * 64), PIXEL, CPU)
    # Nothing is dropped: every image has the loss that one alone would have.
    assert evaluator.predict(model).losses.tolist() == pytest.approx(
        [math.log(1 + 1 / math.e)] * 64
    )
    assert not model.training
    _train(model, _pixels([255], [0]), TrainingConfig(local_epochs=1))
    assert model.training


@pytest.mark.parametrize("parallel", [2, 4])
def test_evaluation_does_not_depend_on_how_many_batches_run_at_once(parallel: int) -> None:
    examples = load_dataset(Dataset())[0]
    model = build_model(Mlp(), SPEC)
    set_weights(model.state_dict(), initial_weights(Mlp(), SPEC, 0))
    with limited_threads(1):
        alone, together = (
            Evaluator(examples, SPEC, CPU, parallel=count).predict(model) for count in (1, parallel)
        )
    assert alone.losses.tobytes() == together.losses.tobytes()
    assert alone.labels.tolist() == together.labels.tolist()
    assert len(alone.labels) == 4_000


def test_a_ray_worker_takes_no_gpu_that_is_not_reserved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device(RayBackend()).type == "cpu"
    assert pick_device(RayBackend(num_gpus_per_worker=0.5)).type == "cuda"
    assert pick_device(BackendConfig("inline")).type == "cuda"
    assert pick_device(BackendConfig("inline", device="cpu")).type == "cpu"


def test_mnist_pixels_reach_the_model_as_they_are(mnist_root: Path) -> None:
    train_set, test_set = load_dataset(Dataset("mnist", str(mnist_root)))
    assert (train_set.images.shape, test_set.images.shape) == (
        (60_000, 1, 28, 28),
        (10_000, 1, 28, 28),
    )
    assert train_set.images.dtype == np.uint8
    assert train_set.images.max() == 255


def _step(config: TrainingConfig, **work: Any) -> float:
    """Take steps on one white image of label 0 and return the first weight; the other is its negative."""
    model = Linear()
    defaults: dict[str, Any] = {"steps": 1, "learning_rate": 0.5}
    train(model, _pixels([255], [0]), PIXEL, config, Work(**{**defaults, **work}), 0, CPU)
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
    assert _step(PLAIN, steps=2, proximal_mu=0.8) == pytest.approx(expected)


def test_a_correction_is_added_to_every_gradient() -> None:
    correction = [torch.tensor([0.1, -0.1])]
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


def test_gradients_are_autograds_bit_for_bit() -> None:
    model = Linear(0.5, -0.5)
    pixels, labels = torch.tensor([[[[0.2]]], [[[0.8]]]]), torch.tensor([0, 1])
    parameters = list(model.parameters())

    def loss() -> torch.Tensor:
        return nn.functional.cross_entropy(model(pixels), labels)

    (wanted,) = torch.autograd.grad(loss(), parameters)
    (found,) = gradient_function(parameters, CPU)(loss())
    assert torch.equal(found, wanted)
    assert all(parameter.grad is None for parameter in parameters)


def test_a_parameter_that_the_loss_does_not_need_is_refused() -> None:
    model = Linear()
    parameters = [*model.parameters(), nn.Parameter(torch.zeros(1))]
    with pytest.raises(RuntimeError, match="not have been used"):
        gradient_function(parameters, CPU)(model(torch.ones(1, 1, 1, 1)).sum())


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
