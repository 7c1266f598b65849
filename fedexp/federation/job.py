"""What a client is given to do in one round, and what it does with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from fedexp.config.schema import Config
from fedexp.core.hooks import Loss, Rule
from fedexp.core.layers import Layers
from fedexp.core.roles import Number, Order, State
from fedexp.core.seeding import derive_seed
from fedexp.core.weights import Weights
from fedexp.data.examples import Examples
from fedexp.data.federated import FederatedData
from fedexp.federation.measuring import Measures, measures
from fedexp.flower.messages import ARRAYS, CONFIG, METRICS, NUM_EXAMPLES, TRAIN_LOSS, Reply
from fedexp.training.loop import Work, epoch_steps
from fedexp.training.stacked import Share
from fedexp.training.trainer import Trainer


class Place(Protocol):
    """Where clients do their jobs: see :class:`fedexp.federation.client.ClientNode`."""

    @property
    def config(self) -> Config:
        """The experiment."""

    @property
    def data(self) -> FederatedData:
        """Who holds what."""

    @property
    def trainer(self) -> Trainer:
        """The one model of this process."""

    @property
    def kept(self) -> frozenset[str]:
        """Entries of the model that stay with the client."""

    def measure(self, weights: Weights, examples: Examples, wanted: Measures) -> dict[str, float]:
        """Return metrics of a model on some examples."""


class ClientJob:
    """One client's work in one round; see :class:`fedexp.core.roles.Job`."""

    def __init__(
        self,
        node: Place,
        client: int,
        server_round: int,
        order: Order,
        state: State,
        examples: Examples,
        steps: int,
    ) -> None:
        training = node.config.training
        self.client, self.round, self.order, self.state = client, server_round, order, state
        self.model, self.num_examples, self.steps = order.weights, len(examples), steps
        self.epoch_steps = epoch_steps(training, len(examples))
        self.learning_rate, self.momentum = training.rate(server_round), training.momentum
        self.layers: Layers = node.trainer.layers
        self.kept = node.kept
        self.examples = examples
        self.ahead: Ahead | None = None
        self._node = node
        self._loss: float | None = None
        self._reply: Reply | None = None

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of what gradients move, in the model's order."""
        return self._node.trainer.parameters

    def train(
        self,
        start: Weights | None = None,
        *,
        steps: int | None = None,
        only: Sequence[str] | None = None,
        pull: float = 0.0,
        toward: Weights | None = None,
        correction: Weights | None = None,
        rate: float | None = None,
        again: bool = False,
        loss: Loss | None = None,
        rule: Rule | None = None,
    ) -> Weights:
        """Take SGD steps on the client's examples; see :class:`fedexp.core.roles.Job`.

        Raises:
            ValueError: If there are no steps to take, or nothing by that name to move.
        """
        trainer = self._node.trainer
        if steps is not None and steps < 1:
            raise ValueError(f"job.train: steps must be >= 1, got {steps}")
        moving = trainer.parameters
        if only is not None and (not only or not set(only) <= set(moving)):
            raise ValueError(f"job.train: only must hold some of {list(moving)}, got {list(only)}")
        if pull and toward is None and start is not None:
            toward = self.model
        if again:
            self.order_of_examples.manual_seed(self._seed)
        chosen = None if only is None else frozenset(only)
        rate = self.learning_rate if rate is None else rate
        work = Work(
            steps or self.steps, rate, pull, toward, correction, chosen, loss=loss, rule=rule
        )
        trained, self._loss = self._trained(self.model if start is None else start, work)
        return trained

    def _trained(self, start: Weights, work: Work) -> tuple[Weights, float]:
        ahead, self.ahead = self.ahead, None
        if ahead is not None and ahead.answers(self.round, start, work):
            self.order_of_examples = ahead.share.order  # where that training left it
            return ahead.trained, ahead.loss
        return self._node.trainer.train(start, self.examples, work, self.order_of_examples)

    def loss(self, weights: Weights) -> float:
        """Return the mean loss of a model on all the client's training examples."""
        return self._node.measure(weights, self.examples, _LOSS)["loss"]

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """The labels of the client's examples."""
        return self.examples.targets

    def features(self, weights: Weights) -> npt.NDArray[np.float32]:
        """Return what a model's last layer takes of each of the client's examples."""
        return self._node.trainer.features(weights, self.examples.inputs)

    def label_counts(self) -> npt.NDArray[np.int64]:
        """Return how many of the client's examples have each label."""
        return np.bincount(self.labels, minlength=self._node.data.spec.num_classes)

    def send(
        self,
        weights: Weights,
        *,
        arrays: Mapping[str, Weights] | None = None,
        numbers: Mapping[str, Number] | None = None,
    ) -> None:
        """Answer the server; see :class:`fedexp.core.roles.Job`.

        Raises:
            ValueError: If it was answered before, or a name is fedexp's own.
        """
        if self._reply is not None:
            raise ValueError("job.send answers once a round; this is the second time")
        for name in {*(arrays or {}), *(numbers or {})} & _TAKEN:
            raise ValueError(f"job.send: the name {name!r} is fedexp's own; choose another")
        plain = {
            k: v.item() if isinstance(v, np.generic) else v for k, v in (numbers or {}).items()
        }
        if self.kept:
            self.state[KEPT] = {n: array for n, array in weights.items() if n in self.kept}
        self._reply = Reply(self.num_examples, weights, self._loss, arrays or {}, plain)

    def reply(self) -> Reply:
        """Return the answer.

        Raises:
            ValueError: If there is none.
        """
        if self._reply is None:
            raise ValueError("the strategy's client never called job.send")
        return self._reply

    @cached_property
    def order_of_examples(self) -> torch.Generator:
        """Decides it; several trainings of one job go on drawing from it."""
        return torch.Generator().manual_seed(self._seed)

    @property
    def _seed(self) -> int:
        return derive_seed(self._node.config.seed, "train", self.round, self.client)


@dataclass(frozen=True)
class Ahead:
    """A client's first training in a round, done before the client is called.

    Attributes:
        round: The round.
        share: What was trained; its order is where the training left it.
        trained: The trained weights.
        loss: The mean loss of the last epoch.
    """

    round: int
    share: Share
    trained: Weights
    loss: float

    def answers(self, server_round: int, start: Weights, work: Work) -> bool:
        """Say whether this is the training that a client asks for."""
        mine = self.share.work
        return (
            self.round == server_round
            and _equal(self.share.start, start)
            and _equal(mine.toward, work.toward)
            and _equal(mine.correction, work.correction)
            and dataclasses.replace(mine, toward=None, correction=None)
            == dataclasses.replace(work, toward=None, correction=None)
        )


def _equal(one: Weights | None, other: Weights | None) -> bool:
    if one is None or other is None or one is other:
        return one is other
    return one.keys() == other.keys() and all(
        one[name] is other[name] or np.array_equal(one[name], other[name]) for name in one
    )


KEPT = "kept"
"""Where a client's state has what stays with it of the model."""

_LOSS = measures(["loss"])
_TAKEN: set[Any] = {ARRAYS, CONFIG, METRICS, NUM_EXAMPLES, TRAIN_LOSS}
