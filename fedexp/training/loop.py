"""The only SGD loop.

Examples stay as they are stored until a batch is made of them. The order of batches comes from the seed
that is passed in; nothing else here draws at random, but what the model itself does (dropout).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from fedexp import tasks
from fedexp.config.training import FULL, TrainingConfig
from fedexp.core.hooks import Loss, Rule
from fedexp.core.weights import Weights
from fedexp.data.examples import Examples
from fedexp.datasets.base import Dataset
from fedexp.training.hooks import Compute, Step, computing
from fedexp.training.network import Network
from fedexp.training.optimizers import build_updater
from fedexp.training.torch_internals import Gradients, gradient_function

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
    counted = tasks.of(dataset).counted
    gradients_of = gradient_function(moving, device)
    update = build_updater(moving, config, work.learning_rate)
    adjusts = config.max_grad_norm is not None or work.pull or work.correction is not None
    adjust = _adjuster(parameters, config, work, device) if adjusts else None
    amp = config.amp and device.type == "cuda"  # a CPU would compute in bfloat16, too, but slower
    precision = torch.autocast(device.type, torch.bfloat16) if amp else nullcontext()
    if not model.training:  # walking through its modules takes as long as a third of a step
        model.train()
    steps, rule = 0, work.rule
    with ExitStack() as stack:
        compute = _computation(network, dataset, work, device, stack)
        turn = Step(compute, gradients_of, precision, batches.endless())
        if rule is not None:
            rule.begin(parameters, lambda tensors: _updater(tensors, config, work))
        while steps < work.steps:
            losses, sizes = [], []
            for x, y in batches.epoch():
                gradients: Gradients | None
                if rule is None:
                    with precision:
                        loss = compute(x, y)
                    gradients = gradients_of(loss)
                else:
                    turn.take(x, y)
                    gradients = rule.gradients(turn)
                    loss = turn.loss
                if gradients is not None:
                    update(adjust(gradients) if adjust else gradients)
                del gradients  # the next ones get the same memory, which the cache still holds
                losses.append(loss.detach())
                sizes.append(counted(y))
                steps += 1
                if steps == work.steps:
                    break
    values = torch.stack(losses).tolist()
    return float(sum(v * size for v, size in zip(values, sizes, strict=True)) / sum(sizes))


def _computation(
    network: Network, dataset: Dataset, work: Work, device: torch.device, stack: ExitStack
) -> Compute:
    """Return what computes a batch's loss; a page's own is taken off the network at the stack's end."""
    if work.loss is not None:
        return stack.enter_context(computing(network, work.loss, device))
    model, loss_of = network.module, tasks.of(dataset).loss()
    return lambda x, y: loss_of(model(x), y)


def _updater(
    tensors: Sequence[Tensor], config: TrainingConfig, work: Work
) -> Callable[[Gradients], None]:
    return build_updater(list(tensors), config, work.learning_rate)


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


def _adjuster(
    parameters: Mapping[str, Tensor], config: TrainingConfig, work: Work, device: torch.device
) -> Callable[[Gradients], Gradients]:
    """Return what is done to gradients between their computation and the step."""
    moving = list(parameters.values())
    pulled = _aims(parameters, work.toward, device) if work.pull else []
    corrected = [] if work.correction is None else _tensors(parameters, work.correction, device)

    @torch.no_grad()
    def adjust(gradients: Gradients) -> Gradients:
        if config.max_grad_norm is not None:
            given = [gradient for gradient in gradients if gradient is not None]
            norm = get_total_norm(given)
            for gradient in given:
                gradient.mul_((config.max_grad_norm / (norm + 1e-6)).clamp(max=1.0))
        if not pulled and not corrected:
            return gradients
        # A parameter that the loss does not depend on may still be pulled.
        filled = tuple(
            torch.zeros_like(parameter) if gradient is None else gradient
            for gradient, parameter in zip(gradients, moving, strict=True)
        )
        if pulled:
            for gradient, parameter, aim in zip(filled, moving, pulled, strict=True):
                gradient.add_(parameter - aim, alpha=work.pull)
        if corrected:
            for gradient, correction in zip(filled, corrected, strict=True):
                gradient.add_(correction)
        return filled

    return adjust


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
