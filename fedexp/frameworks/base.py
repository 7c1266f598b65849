"""What a framework other than PyTorch does for fedexp: NumPy arrays in, NumPy arrays out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from fedexp.core.weights import Weights

Array = npt.NDArray[Any]

Batch = tuple[Array, Array]
"""Inputs, prepared as the data set's page says, and targets."""


@dataclass(frozen=True)
class Recipe:
    """How the steps of one training are taken.

    Attributes:
        optimizer: ``sgd``, ``adam`` or ``adamw``.
        learning_rate: Of every step, > 0.
        momentum: SGD's, in [0, 1); Adam's first beta.
        weight_decay: Factor of the L2 penalty, >= 0: ``weight_decay * w`` is added to the gradient. Of
            adamw, of the decoupled decay.
        max_grad_norm: L2 norm to which a step's gradient is cut down, before anything is added to it;
            None leaves it as it is.
        only: Names of the parameters that move.
        pull: Adds ``pull * (w - toward)`` to every gradient, >= 0.
        toward: What weights are pulled towards; empty without a pull.
        correction: Added to every gradient: name -> array; empty if there is none.
        seed: Of whatever the model draws while it trains, such as dropout's masks, in [0, 2**31).
    """

    optimizer: str
    learning_rate: float
    momentum: float
    weight_decay: float
    max_grad_norm: float | None
    only: tuple[str, ...]
    pull: float = 0.0
    toward: Weights = field(default_factory=dict)
    correction: Weights = field(default_factory=dict)
    seed: int = 0


class Learner(ABC):
    """A model in another framework; there is one in every process, for all clients.

    It must not matter which clients it trained before: what it computes depends on its arguments alone.

    Attributes:
        buffers: Names of weights that gradients do not move but training does, such as BatchNorm's
            statistics.
        frozen: Names of weights that nothing moves.
    """

    buffers: frozenset[str] = frozenset()
    frozen: frozenset[str] = frozenset()

    @abstractmethod
    def initial(self, seed: int) -> Weights:
        """Return the weights to start from, drawn from the seed alone; float32 but for counters."""

    @abstractmethod
    def fit(
        self, start: Weights, batches: Iterable[Batch], recipe: Recipe
    ) -> tuple[Weights, Sequence[float]]:
        """Take a step on every batch, in their order.

        Args:
            start: Where to start; not to be written to.
            batches: As many as there are steps to take, made as they are asked for.
            recipe: How steps are taken.

        Returns:
            The trained weights, and the mean loss of every batch before its step.
        """

    @abstractmethod
    def outputs(self, weights: Weights, inputs: Array) -> Array:
        """Return what a model makes of a batch of prepared inputs, as it does after training.

        Args:
            weights: The model's.
            inputs: float32, shape (n, ...); of tokens int64, shape (n, T); 1 <= n <= 500.

        Returns:
            Logits of a classification or a regression's numbers, shape (n, spec.outputs); logits of the
            next token, shape (n, T, spec.outputs).
        """
