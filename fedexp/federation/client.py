"""What clients do: the jobs that a strategy's client side is given, in whatever process."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fedexp.config.schema import Config
from fedexp.core.hooks import Loss, Rule
from fedexp.core.layers import Layers
from fedexp.core.roles import Number, Order, State
from fedexp.core.seeding import derive_seed
from fedexp.core.weights import Weights, completed, without
from fedexp.data.examples import Examples
from fedexp.data.federated import FederatedData
from fedexp.federation.faults import (
    byzantine_clients,
    drop_out,
    faulty_examples,
    faulty_weights,
    steps_of,
)
from fedexp.federation.measuring import Measures, measure, measures, needs_probabilities
from fedexp.flower.messages import ARRAYS, CONFIG, METRICS, NUM_EXAMPLES, TRAIN_LOSS, Reply
from fedexp.training.building import build_trainer
from fedexp.training.loop import Work, epoch_steps, num_steps, union_steps
from fedexp.training.trainer import Trainer


class ClientNode:
    """What clients do; holds nothing of any one client.

    Args:
        config: The experiment.
        source: Returns the data, of which a client touches its own partition only. Called where the
            client runs, so it must be cheap after the first call in a process.
    """

    def __init__(self, config: Config, source: Callable[[], FederatedData]) -> None:
        self.config, self.source = config, source
        self._side = config.strategy.client()
        self.task = config.task
        # Looked up here, where the run starts: another process need not know code from outside.
        self._attack = config.clients.byzantine.attack()
        self._measures = measures(["loss", *config.measured])
        self._faulty = frozenset(byzantine_clients(config))

    def train(self, client: int, server_round: int, order: Order, state: State) -> Reply:
        """Do a round's work for one client.

        Raises:
            DroppedOutError: If the client fails in this round, as ``clients.dropout`` has it.
        """
        config, union, order = self.config, order.examples_of, self._whole(order, state)
        if not union:  # nothing goes wrong with the upper reference
            drop_out(config, server_round, client)
        faulty = not union and client in self._faulty
        examples = self.data.train_examples(union or [client])
        if faulty:
            examples = faulty_examples(
                config, self._attack, examples, self.data.spec.num_classes, client
            )
        if union:
            steps = union_steps(config.training, len(examples), len(union))
        else:
            steps = steps_of(config, server_round, client, len(examples))
        job = ClientJob(self, client, server_round, order, state, examples, steps)
        with self.trainer.turn(server_round, client):
            self._side.run(job)
        reply = job.reply()
        if faulty and reply.weights is not None:
            sent = faulty_weights(
                config, self._attack, order.weights, reply.weights, server_round, client
            )
            reply = dataclasses.replace(reply, weights=sent)
        if self.kept and reply.weights is not None:
            reply = dataclasses.replace(reply, weights=without(reply.weights, self.kept))
        return reply

    def evaluate(self, client: int, server_round: int, order: Order, state: State) -> Reply:
        """Test a client's model on its own share of the test examples."""
        examples = self.data.client_test_examples(client)
        if not len(examples):  # a reply of no examples has no weight
            return Reply(0, numbers=dict.fromkeys(self._measures, 0.0))
        weights = self._tested_with(client, server_round, order, state)
        with self.trainer.turn(server_round, client):
            return Reply(len(examples), numbers=self.measure(weights, examples, self._measures))

    def personalise(self, client: int, server_round: int, order: Order, state: State) -> Reply:
        """Return the model that a client is tested with, which no deployment sends."""
        weights = self._tested_with(client, server_round, order, state)
        return Reply(self.data.partition.size(client), weights)

    def _tested_with(self, client: int, server_round: int, order: Order, state: State) -> Weights:
        config, order = self.config, self._whole(order, state)
        own = self.data.train_examples([client])  # what it trains on, should it do so once more
        job = ClientJob(
            self, client, server_round, order, state, own, num_steps(config.training, len(own))
        )
        with self.trainer.turn(server_round, client):
            weights, further = self._side.weights_to_test(job), order.numbers.get(TUNED_STEPS, 0)
            return job.train(weights, steps=int(further)) if further else weights

    def _whole(self, order: Order, state: State) -> Order:
        """Return an order whose weights are complete again: what is not sent is the client's own."""
        if not self.kept:
            return order
        own = state.get(KEPT) or {}
        assert isinstance(own, dict)
        return dataclasses.replace(order, weights=completed(order.weights, own, self._initial))

    def measure(self, weights: Weights, examples: Examples, wanted: Measures) -> dict[str, float]:
        """Return metrics of a model on some examples."""
        predict = self.trainer.predictor(examples, probabilities=needs_probabilities(wanted))
        return measure(predict(weights), wanted)

    @property
    def data(self) -> FederatedData:
        """Who holds what."""
        return self.source()

    @cached_property
    def trainer(self) -> Trainer:
        """The one model of this process: building it costs as much as many steps of training."""
        return build_trainer(self.config, self.data.spec)

    @cached_property
    def kept(self) -> frozenset[str]:
        """Entries of the model that stay with the client."""
        return frozenset(self.config.strategy.keeps(self.trainer.layers))

    @cached_property
    def _initial(self) -> Weights:
        return self.trainer.initial()


class ClientJob:
    """One client's work in one round; see :class:`fedexp.core.roles.Job`."""

    def __init__(
        self,
        node: ClientNode,
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
        self._node, self._examples = node, examples
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
            self._generator.manual_seed(self._seed)
        chosen = None if only is None else frozenset(only)
        rate = self.learning_rate if rate is None else rate
        work = Work(
            steps or self.steps, rate, pull, toward, correction, chosen, loss=loss, rule=rule
        )
        trained, self._loss = trainer.train(
            self.model if start is None else start, self._examples, work, self._generator
        )
        return trained

    def loss(self, weights: Weights) -> float:
        """Return the mean loss of a model on all the client's training examples."""
        return self._node.measure(weights, self._examples, _LOSS)["loss"]

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """The labels of the client's examples."""
        return self._examples.targets

    def features(self, weights: Weights) -> npt.NDArray[np.float32]:
        """Return what a model's last layer takes of each of the client's examples."""
        return self._node.trainer.features(weights, self._examples.inputs)

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
    def _generator(self) -> torch.Generator:
        # Several trainings of one job go on drawing from it.
        return torch.Generator().manual_seed(self._seed)

    @property
    def _seed(self) -> int:
        return derive_seed(self._node.config.seed, "train", self.round, self.client)


KEPT = "kept"
"""Where a client's state has what stays with it of the model."""

TUNED_STEPS = "tuned-steps"
"""What the server says where a client is to train before it is tested."""

_LOSS = measures(["loss"])
_TAKEN: set[Any] = {ARRAYS, CONFIG, METRICS, NUM_EXAMPLES, TRAIN_LOSS}
