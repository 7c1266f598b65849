"""The only SGD loop, and the only evaluation loop.

Images stay uint8 until a batch is made of them. Nothing here draws from a global random generator:
the order of batches comes from the seed that is passed in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import get_total_norm

from fedexp.config.clients import FULL, TrainingConfig
from fedexp.config.schema import BackendConfig, RayBackend
from fedexp.core.options import AUTO
from fedexp.data.augment import augment
from fedexp.data.federated import ImageSet
from fedexp.datasets.options import Augmentation, DatasetSpec
from fedexp.training.optimizers import Gradients, build_updater, gradient_function

EVALUATION_BATCH = 500

IMAGES_AT_ONCE = 256
"""Images that are gathered and normalised in one go: small batches cost more in calls than in work."""


@dataclass(frozen=True)
class TrainResult:
    """What a round of local training did.

    Attributes:
        num_examples: Images the client holds.
        loss: Mean cross-entropy of the last epoch's images, each taken before its batch's step.
    """

    num_examples: int
    loss: float


@dataclass(frozen=True)
class Predictions:
    """What a model says of every image.

    Attributes:
        labels: Predicted label, int64, shape (N,).
        losses: Cross-entropy per image in nats, float64, shape (N,).
    """

    labels: npt.NDArray[np.int64]
    losses: npt.NDArray[np.float64]


def pick_device(backend: BackendConfig) -> torch.device:
    """Choose the device: ``auto`` is the GPU where there is one for the taking, else the CPU.

    A Ray worker may take a GPU only if ``backend.num_gpus_per_worker`` reserves one for it.
    """
    if backend.device != AUTO:
        return torch.device(backend.device)
    reserved = not isinstance(backend, RayBackend) or backend.num_gpus_per_worker > 0
    return torch.device("cuda" if reserved and torch.cuda.is_available() else "cpu")


@contextmanager
def limited_threads(threads: int) -> Iterator[None]:
    """Run a block with a fixed number of torch threads; results depend on it in the last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@lru_cache
def normaliser(spec: DatasetSpec, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Return the map from uint8 images to float32 ones: ``(x / 255 - mean) / std`` per channel."""
    mean = torch.tensor(spec.mean, device=device).view(-1, 1, 1)
    std = torch.tensor(spec.std, device=device).view(-1, 1, 1)
    return lambda images: images.float().div_(255.0).sub_(mean).div_(std)


@dataclass(frozen=True)
class Work:
    """What the server asks of one client in one round.

    Attributes:
        steps: SGD steps to take, >= 1.
        learning_rate: Of every step, > 0.
        proximal_mu: Strength of the pull towards the incoming weights, >= 0 (FedProx).
        correction: Added to every gradient, one tensor per parameter, or None (SCAFFOLD).
    """

    steps: int
    learning_rate: float
    proximal_mu: float = 0.0
    correction: list[Tensor] | None = None


def num_steps(config: TrainingConfig, num_examples: int) -> int:
    """Return the SGD steps of a round: ``local_steps``, or those of ``local_epochs``."""
    if config.local_steps is not None:
        return config.local_steps
    batches = math.ceil(num_examples / _batch_size(config, num_examples))
    return config.local_epochs * batches


def union_steps(config: TrainingConfig, num_examples: int, num_clients: int) -> int:
    """Return the SGD steps of a round on the images of several clients, in place of theirs.

    Epochs go over the same images as often as the clients would; of ``local_steps`` it takes them all.
    """
    steps = num_steps(config, num_examples)
    return steps if config.local_steps is None else steps * num_clients


def _batch_size(config: TrainingConfig, num_examples: int) -> int:
    return num_examples if config.batch_size == FULL else int(config.batch_size)


def gradient_mass(steps: int, momentum: float) -> float:
    """Return by how much the gradients of so many SGD steps move the weights, in learning rates.

    The L1 norm of the accumulation vector of Wang et al. (arXiv 2007.07481, section 4): gradient
    ``k`` of ``n`` counts ``(1 - momentum ** (n - k + 1)) / (1 - momentum)`` times. Without momentum it
    is the number of steps.
    """
    lost = momentum * (1 - momentum**steps) / (1 - momentum)
    return (steps - lost) / (1 - momentum)


def train(
    model: nn.Module,
    examples: ImageSet,
    spec: DatasetSpec,
    config: TrainingConfig,
    work: Work,
    seed: int,
    device: torch.device,
    augmentation: Augmentation | None = None,
) -> TrainResult:
    """Train a model in place by mini-batch steps on cross-entropy.

    Args:
        model: Network on ``device``; its weights are the starting point.
        examples: The client's images, at least one.
        spec: How to normalise them.
        config: Batch size and optimizer.
        work: How many steps, and what else goes into them.
        seed: Decides the order of images in every epoch, and what augmentation does to them.
        device: Where the model lies.
        augmentation: Random changes to every image before it is normalised, if any.
    """
    size = _batch_size(config, len(examples.labels))
    batches = _Batches(examples, spec, size, seed, device, augmentation)
    parameters: list[Tensor] = list(model.parameters())
    gradients_of = gradient_function(parameters, device)
    update = build_updater(parameters, config, work.learning_rate)
    adjusts = config.max_grad_norm is not None or work.proximal_mu or work.correction is not None
    adjust = _adjuster(parameters, config, work) if adjusts else None
    amp = config.amp and device.type == "cuda"  # a CPU would compute in bfloat16, too, but slower
    precision = torch.autocast(device.type, torch.bfloat16) if amp else nullcontext()
    if not model.training:  # walking through its modules takes as long as a third of a step
        model.train()
    steps = 0
    while steps < work.steps:
        losses, sizes = [], []
        for x, y in batches.epoch():
            with precision:
                loss = F.cross_entropy(model(x), y)
            gradients = gradients_of(loss)
            if adjust:
                adjust(gradients)
            update(gradients)
            del gradients  # the next ones get the same memory, which the cache still holds
            losses.append(loss.detach())
            sizes.append(len(y))
            steps += 1
            if steps == work.steps:
                break
    values = torch.stack(losses).tolist()
    total = sum(value * size for value, size in zip(values, sizes, strict=True))
    return TrainResult(len(examples.labels), total / sum(sizes))


class _Batches:
    """A client's images, in a new order every epoch."""

    def __init__(
        self,
        examples: ImageSet,
        spec: DatasetSpec,
        size: int,
        seed: int,
        device: torch.device,
        augmentation: Augmentation | None,
    ) -> None:
        self._images = torch.from_numpy(examples.images).to(device)
        self._labels = torch.from_numpy(examples.labels).to(device)
        self._normalise, self._size, self._device = normaliser(spec, device), size, device
        self._generator = torch.Generator().manual_seed(seed)
        self._augmentation = augmentation

    def epoch(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(self._labels), generator=self._generator).to(self._device)
        for chunk in order.split(self._size * max(1, IMAGES_AT_ONCE // self._size)):
            # index_select copies whole rows; indexing by [] gathers byte by byte, at twice the time.
            pixels = self._images.index_select(0, chunk)
            if self._augmentation is not None:
                padding, flip = self._augmentation.padding, self._augmentation.flip
                pixels = augment(pixels, self._generator, padding, flip)
            inputs = self._normalise(pixels).split(self._size)
            targets = self._labels.index_select(0, chunk).split(self._size)
            yield from zip(inputs, targets, strict=True)


def _adjuster(
    parameters: list[Tensor], config: TrainingConfig, work: Work
) -> Callable[[Gradients], None]:
    """Return what is done to gradients, in place, between their computation and the step."""
    start = [p.detach().clone() for p in parameters] if work.proximal_mu else []

    @torch.no_grad()
    def adjust(gradients: Gradients) -> None:
        if config.max_grad_norm is not None:
            norm = get_total_norm(gradients)
            for gradient in gradients:
                gradient.mul_((config.max_grad_norm / (norm + 1e-6)).clamp(max=1.0))
        if work.proximal_mu:
            for gradient, parameter, before in zip(gradients, parameters, start, strict=True):
                gradient.add_(parameter - before, alpha=work.proximal_mu)
        if work.correction is not None:
            for gradient, correction in zip(gradients, work.correction, strict=True):
                gradient.add_(correction)

    return adjust


class Evaluator:
    """Predictions of any number of models on one set of images, which it keeps normalised.

    Batches have a fixed size and each is computed on one thread, so that the result does not depend
    on how many of them run side by side.
    """

    def __init__(
        self, examples: ImageSet, spec: DatasetSpec, device: torch.device, parallel: int = 1
    ) -> None:
        normalise = normaliser(spec, device)
        images = torch.from_numpy(examples.images).split(EVALUATION_BATCH)
        labels = torch.from_numpy(examples.labels).to(device).split(EVALUATION_BATCH)
        self._batches = [
            (normalise(batch.to(device)), y) for batch, y in zip(images, labels, strict=True)
        ]
        self._parallel = parallel

    def predict(self, model: nn.Module) -> Predictions:
        """Run the model over all images; the model lies on this evaluator's device."""
        model.eval()

        def one(batch: tuple[Tensor, Tensor]) -> tuple[Any, Any]:
            with torch.inference_mode():
                logits = model(batch[0])
                losses = F.cross_entropy(logits, batch[1], reduction="none")
                return logits.argmax(1).cpu().numpy(), losses.double().cpu().numpy()

        if self._parallel > 1:
            with ThreadPoolExecutor(self._parallel) as pool:
                results = list(pool.map(one, self._batches))
        else:
            results = [one(batch) for batch in self._batches]
        labels, losses = zip(*results, strict=True)
        return Predictions(np.concatenate(labels), np.concatenate(losses))
