"""What trains a model and runs it, in whatever framework it is written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fedexp.core.layers import Layers
from fedexp.core.weights import Weights
from fedexp.data.examples import Examples
from fedexp.metrics import Predictions
from fedexp.training.loop import Work
from fedexp.training.stacked import AloneError, Share

Predictor = Callable[[Weights], Predictions]
"""From a model's weights to what it says of certain examples."""


class Trainer(ABC):
    """The one model of a process, filled with the weights of whoever is at work.

    Attributes:
        parameters: Names of what gradients move, in the model's order.
        buffers: Names of the entries that are no parameters.
        frozen: Names of the parameters that nobody trains.
        layers: The model's entries by layer.
    """

    parameters: tuple[str, ...]
    buffers: frozenset[str]
    frozen: frozenset[str]
    layers: Layers

    @abstractmethod
    def initial(self) -> Weights:
        """Return the weights that the experiment's seed draws."""

    @abstractmethod
    def train(
        self, start: Weights, examples: Examples, work: Work, order: torch.Generator
    ) -> tuple[Weights, float]:
        """Take steps on a client's examples.

        Args:
            start: Where to start.
            examples: One at least.
            work: How many steps, and what else goes into them.
            order: Decides the order of examples in every epoch, and how they are varied.

        Returns:
            The trained weights, a copy; and the mean loss of the last epoch's predictions, each taken
            before its batch's step.

        Raises:
            ValueError: If the weights are not the model's, or the framework cannot do the work.
        """

    @property
    def at_once(self) -> int | None:
        """How many clients' memory fits the device; None until it was measured on the first client."""
        return 1

    def train_together(self, shares: Sequence[Share]) -> list[tuple[Weights, float]]:
        """Train several clients of equal work at once, each as :meth:`train` would but for rounding.

        Args:
            shares: The clients', all of one :meth:`Share.kind`. A single one gets the bits that it would
                get beside others.

        Returns:
            For each client, what :meth:`train` returns.

        Raises:
            AloneError: If they must be trained one by one.
            ValueError: If weights are not the model's.
        """
        raise AloneError("only models in PyTorch can be stacked")

    @abstractmethod
    def predictor(
        self, examples: Examples, *, parallel: int = 1, probabilities: bool = False
    ) -> Predictor:
        """Prepare examples, and return what judges models by them.

        Args:
            examples: One at least.
            parallel: Batches that may be computed side by side.
            probabilities: Whether predictions hold the probability of every label.
        """

    @abstractmethod
    def outputs(self, weights: Weights, inputs: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return what a model makes of inputs as they are stored."""

    def features(self, weights: Weights, inputs: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return what a model's last layer takes of inputs as they are stored, the first axis N.

        Raises:
            ValueError: If the framework cannot say.
        """
        raise ValueError("job.features: only models in PyTorch say what their last layer takes")

    def width(self, weights: Weights) -> int | None:
        """Return how many numbers the last layer takes of an input; None where they are no vector."""
        return None

    @abstractmethod
    def turn(self, server_round: int, client: int) -> AbstractContextManager[None]:
        """Run a block as a client's turn: what the model draws in it depends on nothing else.

        The number of torch's threads is the experiment's in it.
        """
