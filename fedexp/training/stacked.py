"""Several clients trained at once: their parameters lie in one tensor each, a row per client.

Starting a small step takes a GPU longer than computing it, and the step of many clients starts as fast as
that of one. Every client gets the gradients, and the order of examples, that it would have alone, but for
the order in which the sums of a matrix product are added up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from fedexp import tasks
from fedexp.config.training import TrainingConfig
from fedexp.core.weights import Weights
from fedexp.data.examples import Examples
from fedexp.datasets.base import Dataset
from fedexp.training.gradients import precision_of
from fedexp.training.loop import (
    Batches,
    Work,
    adjuster,
    batch_size,
    mean_loss,
    take_steps,
)
from fedexp.training.network import Network
from fedexp.training.optimizers import build_updater
from fedexp.training.torch_internals import Gradients, gradient_function

TOLERANCE = 0.02
"""How far a stacked gradient may be from that of the client alone, as a share of its length. Rounding
takes 1e-6 of it, and TF32 on a GPU 1e-3; a network that mixes up clients is off by far more."""
NOISE = 1e-5
"""What it may be off in any case, as a share of the longest parameter's gradient: a bias in front of a
layer that normalises has no gradient but rounding."""

LANES = 64
"""A multiple of the numbers that any CPU's vectors hold."""


class AloneError(Exception):
    """Clients cannot be trained together; in words, why."""


def batch_sizes(config: TrainingConfig, num_examples: int, num_steps: int) -> Hashable:
    """Return what is equal for clients that take as many steps on batches of the same sizes."""
    size = batch_size(config, num_examples)
    # Within the first epoch, before its last, smaller batch, it matters not how many more there are.
    return num_steps, size, None if num_steps <= num_examples // size else num_examples


@dataclass(frozen=True)
class Share:
    """One client's part of a training.

    Attributes:
        start: Where it starts.
        examples: One at least.
        work: How many steps, and what else goes into them.
        order: Decides the order of examples in every epoch, and how they are varied.
    """

    start: Weights
    examples: Examples
    work: Work
    order: torch.Generator

    def twin(self) -> Share:
        """Return the same, with an order of its own."""
        order = torch.Generator()
        order.set_state(self.order.get_state())
        return replace(self, order=order)

    def kind(self, config: TrainingConfig) -> Hashable | None:
        """Return what is equal for clients of equal work; None for what must be done alone.

        Equal work is the same number of steps, on batches of the same sizes, of the same kind.
        """
        work = self.work
        if work.loss is not None or work.rule is not None:
            return None
        sizes = batch_sizes(config, len(self.examples), work.steps)
        adjusted = work.pull, work.toward is None, work.correction is None
        return sizes, work.learning_rate, work.only, adjusted


def train_stacked(
    network: Network,
    shares: Sequence[Share],
    dataset: Dataset,
    config: TrainingConfig,
    device: torch.device,
) -> list[tuple[Weights, float]]:
    """Train a network for several clients at once.

    Args:
        network: One that :func:`ensure_stackable` has passed.
        shares: The clients', all of one :meth:`Share.kind`.
        dataset: How batches are prepared and varied, and what the loss is.
        config: Batch size and optimizer.
        device: Where the network lies.

    Returns:
        For each client, the trained weights, a copy, and the mean loss, as
        :func:`fedexp.training.loop.train` returns it.

    Raises:
        ValueError: If weights are not the model's.
    """
    work, counted = shares[0].work, tasks.of(dataset).counted
    network.load(shares[0].start)  # for what the module holds beside weights
    state = _stack(network, [share.start for share in shares], device)
    names = [name for name in network.parameters if work.only is None or name in work.only]
    flat = [_flat(state[name]) for name in names]
    for name, part in zip(names, flat, strict=True):  # rows that see what happens to the flat ones
        rows = state[name]
        state[name] = part[: rows.numel()].view(rows.shape).requires_grad_()
    gradients_of = gradient_function([state[name] for name in names], device)
    update = build_updater(flat, config, work.learning_rate)
    adjust = _adjuster(names, flat, shares, device)
    compute, precision = _losses(network, dataset), precision_of(config, device)
    network.module.train()

    def step(x: Tensor, y: Tensor) -> Tensor:
        with precision, torch.enable_grad():
            losses = compute(state, x, y)
            total = losses.sum()  # a row depends on its own client's loss alone
        gradients = gradients_of(total)
        if config.max_grad_norm is not None:
            _clip([part for part in gradients if part is not None], config.max_grad_norm)
        gradients = tuple(None if part is None else _flat(part) for part in gradients)
        update(adjust(gradients) if adjust else gradients)
        return losses.detach()

    batches = _Rows(shares, dataset, config, device)
    with torch.no_grad():
        losses, sizes = take_steps(
            batches.epoch, work.steps, step, lambda targets: [counted(row) for row in targets]
        )
    found = {name: part.detach().cpu().numpy() for name, part in state.items()}
    columns = zip(torch.stack(losses).T.tolist(), zip(*sizes, strict=True), strict=True)
    return [
        ({name: rows[k].copy() for name, rows in found.items()}, mean_loss(*column))
        for k, column in enumerate(columns)
    ]


def ensure_stackable(
    network: Network,
    shares: Sequence[Share],
    dataset: Dataset,
    config: TrainingConfig,
    device: torch.device,
) -> None:
    """Take the first gradient of two clients together and alone, and compare.

    So a network is refused that looks at other rows than its own, draws random numbers, or does what
    ``torch.func`` cannot do. The clients' orders are left as they were.

    Raises:
        AloneError: If clients of this network must be trained alone.
    """
    if (beside := network.beside) is not None:
        raise AloneError(f"the model holds {beside}")
    pair = [share.twin() for share in shares[:2]]
    chance = torch.random.get_rng_state()
    x, y = next(_Rows(pair, dataset, config, device).epoch())
    state = _stack(network, [share.start for share in pair], device)
    moving = [state[name].requires_grad_() for name in network.parameters]
    network.module.train()
    try:  # in float32, whatever will be computed in: what counts is not rounding
        losses = _losses(network, dataset)(state, x, y)
        together = gradient_function(moving, device)(losses.sum())
    except Exception as error:  # there is no telling what a network's code cannot do in a vmap
        raise AloneError(f"torch.func cannot stack the model ({_first_line(error)})") from error
    loss_of = tasks.of(dataset).loss()
    for k, share in enumerate(pair):
        network.load(share.start)
        loss = loss_of(network.module(x[k]), y[k])
        alone = gradient_function(list(network.parameters.values()), device)(loss)
        if not _agree(alone, together, k):
            raise AloneError("the model gives a client other gradients beside another than alone")
    if network.beside is not None or not torch.equal(chance, torch.random.get_rng_state()):
        raise AloneError("the model keeps or draws something in every step")


class _Rows:
    """The batches of several clients, row by row."""

    def __init__(
        self,
        shares: Sequence[Share],
        dataset: Dataset,
        config: TrainingConfig,
        device: torch.device,
    ) -> None:
        self._each = [
            Batches(s.examples, dataset, batch_size(config, len(s.examples)), s.order, device)
            for s in shares
        ]

    def epoch(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield an epoch's batches, shape (clients, n, ...)."""
        for batches in zip(*(each.epoch() for each in self._each), strict=False):
            inputs, targets = zip(*batches, strict=True)
            yield torch.stack(inputs), torch.stack(targets)


def _losses(
    network: Network, dataset: Dataset
) -> Callable[[dict[str, Tensor], Tensor, Tensor], Tensor]:
    """Return the map from stacked parameters, inputs and targets to each client's loss."""
    model, loss_of = network.module, tasks.of(dataset).loss()

    def loss(state: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return loss_of(functional_call(model, state, (x,)), y)

    return vmap(loss, randomness="error")


def _stack(network: Network, weights: Sequence[Weights], device: torch.device) -> dict[str, Tensor]:
    return {name: part.to(device) for name, part in network.stacked(weights).items()}


def _flat(rows: Tensor) -> Tensor:
    """Return stacked numbers in a row, on a CPU filled up until its vectors leave nothing over.

    What is left over at the end, a CPU computes in another way, which rounds otherwise: results would
    depend on who is last, and on how many there are.
    """
    flat = rows.reshape(-1)
    if flat.device.type == "cpu" and len(flat) % LANES:
        return torch.nn.functional.pad(flat, (0, -len(flat) % LANES))
    return flat


def _adjuster(
    names: Sequence[str], moving: Sequence[Tensor], shares: Sequence[Share], device: torch.device
) -> Callable[[Gradients], Gradients] | None:
    work = shares[0].work

    def rows(weights: Sequence[Weights | None]) -> list[Tensor]:
        each = [one for one in weights if one is not None]
        found = [torch.stack([torch.tensor(one[name]) for one in each]) for name in names]
        return [_flat(part.to(device)) for part in found]

    pulled: list[Tensor] = []
    if work.pull and work.toward is None:
        pulled = [parameter.detach().clone() for parameter in moving]
    elif work.pull:
        pulled = rows([share.work.toward for share in shares])
    corrected = [] if work.correction is None else rows([s.work.correction for s in shares])
    return adjuster(moving, None, work.pull, pulled, corrected)


def _clip(gradients: list[Tensor], limit: float) -> None:
    """Shorten each client's gradient, in place, to a length."""
    if not gradients:
        return
    each = [torch.linalg.vector_norm(part.reshape(len(part), -1), dim=1) for part in gradients]
    factors = (limit / (torch.linalg.vector_norm(torch.stack(each), dim=0) + 1e-6)).clamp(max=1.0)
    for part in gradients:
        part.mul_(factors.view(-1, *[1] * (part.dim() - 1)))


def _agree(alone: Gradients, together: Gradients, row: int) -> bool:
    lengths = [float(one.norm()) for one in alone if one is not None]
    noise = NOISE * max(lengths, default=0.0)
    for one, rows in zip(alone, together, strict=True):
        if one is None or rows is None:
            if one is not None or rows is not None:
                return False
            continue
        length, off = float(one.norm()), float((rows[row] - one).norm())
        if math.isfinite(length) and not off <= TOLERANCE * length + noise:
            return False
    return True


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
