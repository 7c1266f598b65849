"""The only SGD loop, and the only evaluation loop.

Images stay uint8 until a batch is made of them. Nothing here draws from a global random generator:
the order of batches comes from the seed that is passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.sgd import sgd

from fedexp.augment import augment
from fedexp.config import BackendConfig, RayBackend
from fedexp.config_data import Augmentation, DatasetSpec
from fedexp.config_strategy import TrainingConfig
from fedexp.data import ImageSet
from fedexp.options import AUTO

EVALUATION_BATCH = 500

BATCHES_AT_ONCE = 16
"""Batches that are gathered and normalised in one go: small ones cost more in calls than in work."""


@dataclass(frozen=True)
class TrainResult:
    """What a round of local training did.

    Attributes:
        num_examples: Images the client holds.
        loss: Mean cross-entropy of the last epoch's batches, each taken before its step.
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


def normaliser(spec: DatasetSpec, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Return the map from uint8 images to float32 ones: ``(x / 255 - mean) / std`` per channel."""
    mean = torch.tensor(spec.mean, device=device).view(-1, 1, 1)
    std = torch.tensor(spec.std, device=device).view(-1, 1, 1)
    return lambda images: images.float().div_(255.0).sub_(mean).div_(std)


def train(
    model: nn.Module,
    examples: ImageSet,
    spec: DatasetSpec,
    config: TrainingConfig,
    seed: int,
    device: torch.device,
    augmentation: Augmentation | None = None,
) -> TrainResult:
    """Train a model in place by mini-batch SGD on cross-entropy.

    Args:
        model: Network on ``device``; its weights are the starting point.
        examples: The client's images, at least one.
        spec: How to normalise them.
        config: Epochs, batch size and optimizer.
        seed: Decides the order of images in every epoch, and what augmentation does to them.
        device: Where the model lies.
        augmentation: Random changes to every image before it is normalised, if any.
    """
    images = torch.from_numpy(examples.images).to(device)
    labels = torch.from_numpy(examples.labels).to(device)
    normalise = normaliser(spec, device)
    parameters: list[Tensor] = list(model.parameters())
    update = _updater(parameters, config)
    generator = torch.Generator().manual_seed(seed)
    model.train()
    for _ in range(config.local_epochs):
        losses, sizes = [], []
        order = torch.randperm(len(labels), generator=generator).to(device)
        for chunk in order.split(config.batch_size * BATCHES_AT_ONCE):
            # index_select copies whole rows; indexing by [] gathers byte by byte, at twice the time.
            pixels = images.index_select(0, chunk)
            if augmentation is not None:
                pixels = augment(pixels, generator, augmentation.padding, augmentation.flip)
            inputs = normalise(pixels).split(config.batch_size)
            targets = labels.index_select(0, chunk).split(config.batch_size)
            for x, y in zip(inputs, targets, strict=True):
                loss = F.cross_entropy(model(x), y)
                update(list(torch.autograd.grad(loss, parameters)))
                losses.append(loss.detach())
                sizes.append(len(y))
    total = (
        torch.stack(losses).double().dot(torch.tensor(sizes, dtype=torch.float64, device=device))
    )
    return TrainResult(len(labels), total.item() / len(labels))


def _updater(parameters: list[Tensor], config: TrainingConfig) -> Callable[[list[Tensor]], None]:
    """Return the optimizer's step: gradients in, parameters changed in place.

    torch's functional SGD, because ``torch.optim.SGD`` spends 50 us a step on hooks and profiling: a
    fifth of a step on a small network.
    """
    momenta: list[Tensor | None] = [None] * len(parameters)

    @torch.no_grad()
    def step(gradients: list[Tensor]) -> None:
        sgd(
            parameters,
            gradients,
            momenta,
            lr=config.learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            dampening=0.0,
            nesterov=False,
            maximize=False,
            fused=True,
        )

    return step


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
