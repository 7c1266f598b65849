"""What a strategy's page puts into the loop: another loss, another rule for a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fedexp.core.hooks import Loss, Seen
from fedexp.core.weights import Weights
from fedexp.training.blocked import forward_of
from fedexp.training.gradients import Compute, Differentiate
from fedexp.training.network import Network
from fedexp.training.torch_internals import Gradients


@contextmanager
def computing(network: Network, loss: Loss, device: torch.device) -> Iterator[Compute]:
    """Yield what computes a loss of a page's own.

    Args:
        network: What is trained.
        loss: The page's.
        device: Where the network lies.
    """
    model, beside = network.module, [_tensors(weights, device) for weights in loss.beside]
    taken: list[Tensor]

    def see(state: dict[str, Tensor] | None, inputs: Tensor) -> Seen:
        taken.clear()
        outputs = forward(inputs) if state is None else functional_call(model, state, (inputs,))
        return Seen(outputs, taken[-1])

    def compute(inputs: Tensor, targets: Tensor) -> Tensor:
        others = _unmoved(model, beside, inputs, see) if beside else []
        return loss.of(see(None, inputs), targets, others)

    with taken_by_head(network) as taken:
        forward = forward_of(model)  # the head may be one of the convolutions
        yield compute


@contextmanager
def taken_by_head(network: Network) -> Iterator[list[Tensor]]:
    """Yield a list to which is added what the last layer takes, call by call."""
    taken: list[Tensor] = []
    hook = network.head.register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0]))
    try:
        yield taken
    finally:
        hook.remove()


def _unmoved(
    model: nn.Module,
    states: Sequence[dict[str, Tensor]],
    inputs: Tensor,
    see: Callable[[dict[str, Tensor], Tensor], Seen],
) -> list[Seen]:
    """Return what models that are not trained make of a batch."""
    model.eval()
    with torch.no_grad():
        found = [see(state, inputs) for state in states]
    model.train()
    return found


def _tensors(weights: Weights, device: torch.device) -> dict[str, Tensor]:
    return {name: torch.tensor(array).to(device) for name, array in weights.items()}


class Step:
    """One step as a rule sees it; see :class:`fedexp.core.hooks.Turn`.

    Attributes:
        loss: What the first gradient of the step was that of, a tensor without dimensions.
    """

    def __init__(
        self,
        differentiate: Differentiate,
        others: Iterator[tuple[Tensor, Tensor]],
    ) -> None:
        self._differentiate, self._others = differentiate, others
        self.loss = torch.zeros(())

    def take(self, inputs: Tensor, targets: Tensor) -> None:
        """Begin a step on a batch."""
        self._batch, self._fresh = (inputs, targets), True

    def gradient(self) -> Gradients:
        """Return the gradients at the parameters as they are."""
        with torch.no_grad():
            loss, gradients = self._differentiate(*self._batch)
        if self._fresh:
            self.loss, self._fresh = loss, False
        return gradients

    def another(self) -> None:
        """Turn to a batch from an order of its own."""
        self._batch = next(self._others)
