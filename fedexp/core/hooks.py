"""How a strategy's page changes what a step of training computes: another loss, or another rule.

Both are written in torch, which a page imports in the functions that need it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from fedexp.core.weights import Weights

if TYPE_CHECKING:
    from torch import Tensor


class Seen(NamedTuple):
    """What a model makes of a batch.

    Attributes:
        outputs: Its outputs, shape (n, outputs).
        features: What its last layer takes, shape (n, width).
    """

    outputs: Tensor
    features: Tensor


@dataclass(frozen=True)
class Loss:
    """A loss in place of the task's.

    Attributes:
        of: From what the model makes of a batch, the targets, and what the models of ``beside`` make of
            it (without gradients), to one number.
        beside: Weights of further models that look at every batch, none of which is trained.
    """

    of: Callable[[Seen, Tensor, Sequence[Seen]], Tensor]
    beside: Sequence[Weights] = ()


Gradients = tuple["Tensor | None", ...]
"""One tensor per parameter that moves; None where the loss does not depend on it."""


class Turn(Protocol):
    """One step of training, as a rule sees it.

    Attributes:
        loss: That of the step's first gradient.
    """

    loss: Tensor

    def gradient(self) -> Gradients:
        """Return the gradients of the loss at the parameters as they are now, on the step's batch."""

    def another(self) -> None:
        """Turn to another batch of the client's examples until the step is over."""


class Rule:
    """What is done in a step in place of taking the loss's gradient; one object per training.

    Attributes:
        moving: The parameters that move.
    """

    moving: Sequence[Tensor] = ()

    def begin(
        self,
        parameters: Mapping[str, Tensor],
        optimizer: Callable[[Sequence[Tensor]], Callable[[Gradients], None]],
    ) -> None:
        """Training starts.

        Args:
            parameters: Those that move, by name; they may be written to in place, under ``no_grad``.
            optimizer: Makes what takes a step of the options' kind on other tensors.
        """
        self.moving = list(parameters.values())

    def gradients(self, turn: Turn) -> Gradients | None:
        """Return the gradients that the optimizer takes a step along; None for no step.

        The parameters must be as they were, unless there is no step.
        """
        return turn.gradient()


class Elsewhere(Rule):
    """A rule that takes the gradient where a first one leads to, and steps along it from where it was."""

    def gradient_at(self, turn: Turn, slopes: Gradients, size: float | Tensor) -> Gradients:
        """Return the gradient at the parameters plus ``size`` times the slopes, and put them back."""
        import torch

        before = [parameter.detach().clone() for parameter in self.moving]
        with torch.no_grad():
            for parameter, slope in zip(self.moving, slopes, strict=True):
                if slope is not None:
                    parameter.add_(size * slope)
        there = turn.gradient()
        with torch.no_grad():
            for parameter, value in zip(self.moving, before, strict=True):
                parameter.copy_(value)
        return there


def numbers_of(tensors: Mapping[str, Tensor]) -> Weights:
    """Return tensors as arrays, copies."""
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in tensors.items()}
