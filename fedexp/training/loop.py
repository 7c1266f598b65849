"""The only SGD loop.

Examples stay as they are stored until a batch is made of them. The order of batches comes from the seed
that is passed in; nothing else here draws at random, but what the model itself does (dropout).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from fedexp import tasks
from fedexp.config.training import FULL, TrainingConfig
from fedexp.core.hooks import Loss, Rule
from fedexp.core.weights import Weights
from fedexp.data.examples import Examples
from fedexp.datasets.base import Dataset
from fedexp.training.gradients import Differentiate, by_autograd, differentiation, precision_of
from fedexp.training.hooks import Step, computing
from fedexp.training.network import Network
from fedexp.training.optimizers import build_updater
from fedexp.training.torch_internals import Gradients

Counted = TypeVar("Counted")

AT_ONCE = 256
"""Examples that are gathered and prepared in one go: small batches cost more in calls than in work."""


@dataclass(frozen=True)
class Work:
    """What is asked of one training.

    Attributes:
        steps: SGD steps to take, >= 1.
        learning_rate: Of every step, > 0.
        pull: Adds ``pull * (w - toward)`` to every gradient, >= 0.
        toward: What weights are pulled towards; None is where they started.
        correction: Added to every gradient: name -> array, or None.
        only: Names of the parameters that move; None is all of them.
        loss: In place of the task's; None is the task's.
        rule: How a step's gradients come about; None takes those of the loss.
    """

    steps: int
    learning_rate: float
    pull: float = 0.0
    toward: Weights | None = None
    correction: Weights | None = None
    only: frozenset[str] | None = None
    loss: Loss | None = None
    rule: Rule | None = None


def num_steps(config: TrainingConfig, num_examples: int) -> int:
    """Return the SGD steps of a round: ``local_steps``, or those of ``local_epochs``."""
    if config.local_steps is not None:
        return config.local_steps
    return config.local_epochs * epoch_steps(config, num_examples)


def epoch_steps(config: TrainingConfig, num_examples: int) -> int:
    """Return the SGD steps that go once over so many examples."""
    return math.ceil(num_examples / batch_size(config, num_examples))


def union_steps(config: TrainingConfig, num_examples: int, num_clients: int) -> int:
    """Return the SGD steps of a round on the examples of several clients, in place of theirs.

    Epochs go over the same examples as often as the clients would; of ``local_steps`` it takes them all.
    """
    steps = num_steps(config, num_examples)
    return steps if config.local_steps is None else steps * num_clients


def batch_size(config: TrainingConfig, num_examples: int) -> int:
    """Return the examples of a step: ``batch_size``, or all where it is ``full``."""
    return num_examples if config.batch_size == FULL else int(config.batch_size)


def train(
    network: Network,
    parameters: Mapping[str, Tensor],
    examples: Examples,
    dataset: Dataset,
    config: TrainingConfig,
    work: Work,
    generator: torch.Generator,
    device: torch.device,
) -> float:
    """Train a network in place by mini-batch steps on a task's loss.

    Args:
        network: Its weights are the starting point.
        parameters: Those of its parameters that move, by name.
        examples: The client's, at least one.
        dataset: How batches are prepared and varied, and what the loss is.
        config: Batch size and optimizer.
        work: How many steps, and what else goes into them.
        generator: Decides the order of examples in every epoch, and how they are varied.
        device: Where the network lies.

    Returns:
        Mean loss of the last epoch's predictions, each taken before its batch's step.
    """
    model, moving = network.module, list(parameters.values())
    batches = Batches(examples, dataset, batch_size(config, len(examples)), generator, device)
    update = build_updater(moving, config, work.learning_rate)
    adjust = _adjuster_alone(parameters, config, work, device)
    if not model.training:  # walking through its modules takes as long as a third of a step
        model.train()
    rule = work.rule
    with ExitStack() as stack:
        differentiate = _differentiation(network, moving, dataset, config, work, device, stack)
        turn = Step(differentiate, batches.endless())
        if rule is not None:
            rule.begin(parameters, lambda tensors: _updater(tensors, config, work))

        def step(x: Tensor, y: Tensor) -> Tensor:
            gradients: Gradients | None
            if rule is None:
                loss, gradients = differentiate(x, y)
            else:
                turn.take(x, y)
                with torch.enable_grad():  # it may take gradients of its own
                    gradients = rule.gradients(turn)
                loss = turn.loss
            if gradients is not None:
                update(adjust(gradients) if adjust else gradients)
            return loss

        with torch.no_grad():
            losses, sizes = take_steps(batches.epoch, work.steps, step, tasks.of(dataset).counted)
    return mean_loss(torch.stack(losses).tolist(), sizes)


def take_steps(
    epoch: Callable[[], Iterable[tuple[Tensor, Tensor]]],
    num_steps: int,
    step: Callable[[Tensor, Tensor], Tensor],
    counted: Callable[[Tensor], Counted],
) -> tuple[list[Tensor], list[Counted]]:
    """Go through epochs until so many steps are taken.

    Args:
        epoch: Returns an epoch's batches.
        num_steps: >= 1.
        step: Takes a step on a batch, and returns the loss before it. It keeps no gradients: the next
            ones get the same memory, which the cache still holds.
        counted: How many predictions a batch's loss is the mean of, from its targets.

    Returns:
        Of each step of the last epoch, its loss, and what was counted.
    """
    taken = 0
    losses: list[Tensor] = []
    sizes: list[Counted] = []
    while taken < num_steps:
        losses.clear()
        sizes.clear()
        for x, y in epoch():
            losses.append(step(x, y))
            sizes.append(counted(y))
            taken += 1
            if taken == num_steps:
                break
    return losses, sizes


def mean_loss(losses: Sequence[float], sizes: Sequence[int]) -> float:
    """Return the mean of batches' losses, weighted by the predictions that each is the mean of."""
    return float(sum(v * size for v, size in zip(losses, sizes, strict=True)) / sum(sizes))


def _differentiation(
    network: Network,
    moving: Sequence[Tensor],
    dataset: Dataset,
    config: TrainingConfig,
    work: Work,
    device: torch.device,
    stack: ExitStack,
) -> Differentiate:
    """Return what a step computes; what a page's own loss needs is off the network at the stack's end."""
    precision = precision_of(config, device)
    if work.loss is None:
        return differentiation(network.module, moving, tasks.of(dataset).loss(), precision, device)
    compute = stack.enter_context(computing(network, work.loss, device))
    return by_autograd(compute, moving, precision, device)


def _updater(
    tensors: Sequence[Tensor], config: TrainingConfig, work: Work
) -> Callable[[Gradients], None]:
    return torch.no_grad()(build_updater(list(tensors), config, work.learning_rate))


class Batches:
    """A client's examples, in a new order every epoch."""

    def __init__(
        self,
        examples: Examples,
        dataset: Dataset,
        size: int,
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        self._inputs = torch.from_numpy(examples.inputs).to(device)
        self._targets = torch.from_numpy(examples.targets).to(device)
        self._dataset, self._size, self._device = dataset, size, device
        self._generator = generator

    def epoch(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield an epoch's batches, prepared inputs and targets."""
        order = torch.randperm(len(self._targets), generator=self._generator).to(self._device)
        for chunk in order.split(self._size * max(1, AT_ONCE // self._size)):
            # index_select copies whole rows; indexing by [] gathers byte by byte, at twice the time.
            stored = self._inputs.index_select(0, chunk)
            stored = self._dataset.vary(stored, self._generator)
            inputs = self._dataset.prepare(stored).split(self._size)
            targets = self._targets.index_select(0, chunk).split(self._size)
            yield from zip(inputs, targets, strict=True)

    def endless(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield epoch after epoch."""
        while True:
            yield from self.epoch()


def _adjuster_alone(
    parameters: Mapping[str, Tensor], config: TrainingConfig, work: Work, device: torch.device
) -> Callable[[Gradients], Gradients] | None:
    pulled = _aims(parameters, work.toward, device) if work.pull else []
    corrected = [] if work.correction is None else _tensors(parameters, work.correction, device)
    clip = None if config.max_grad_norm is None else partial(_clip, limit=config.max_grad_norm)
    return adjuster(list(parameters.values()), clip, work.pull, pulled, corrected)


def adjuster(
    moving: Sequence[Tensor],
    clip: Callable[[list[Tensor]], None] | None,
    pull: float,
    pulled: Sequence[Tensor],
    corrected: Sequence[Tensor],
) -> Callable[[Gradients], Gradients] | None:
    """Return what is done to gradients between their computation and the step; None for nothing.

    Args:
        moving: The parameters.
        clip: Makes gradients shorter, in place, where they are too long.
        pull: How strongly parameters are pulled.
        pulled: Where to, one per parameter; none for no pull.
        corrected: Added to every gradient, one per parameter; none for nothing.
    """
    if clip is None and not pulled and not corrected:
        return None

    def adjust(gradients: Gradients) -> Gradients:
        if clip is not None:
            clip([gradient for gradient in gradients if gradient is not None])
        if not pulled and not corrected:
            return gradients
        # A parameter that the loss does not depend on may still be pulled.
        filled = tuple(
            torch.zeros_like(parameter) if gradient is None else gradient
            for gradient, parameter in zip(gradients, moving, strict=True)
        )
        if pulled:
            for gradient, parameter, aim in zip(filled, moving, pulled, strict=True):
                gradient.add_(parameter - aim, alpha=pull)
        if corrected:
            for gradient, correction in zip(filled, corrected, strict=True):
                gradient.add_(correction)
        return filled

    return adjust


def _clip(gradients: list[Tensor], limit: float) -> None:
    norm = get_total_norm(gradients)
    for gradient in gradients:
        gradient.mul_((limit / (norm + 1e-6)).clamp(max=1.0))


def _aims(
    parameters: Mapping[str, Tensor], toward: Weights | None, device: torch.device
) -> list[Tensor]:
    if toward is not None:
        return _tensors(parameters, toward, device)
    return [parameter.detach().clone() for parameter in parameters.values()]


def _tensors(
    parameters: Mapping[str, Tensor], weights: Weights, device: torch.device
) -> list[Tensor]:
    return [torch.tensor(weights[name]).to(device) for name in parameters]
