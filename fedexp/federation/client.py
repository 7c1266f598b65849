"""What clients do: the jobs that a strategy's client side is given, in whatever process."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cached_property
from typing import TypeVar

from fedexp.config.schema import Config
from fedexp.core.roles import Order, State
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
from fedexp.federation.job import KEPT, Ahead, ClientJob
from fedexp.federation.measuring import Measures, measure, measures, needs_probabilities
from fedexp.flower.messages import Reply
from fedexp.training.building import build_trainer
from fedexp.training.loop import num_steps, union_steps
from fedexp.training.trainer import Trainer

Kind = TypeVar("Kind", bound="ClientJob")


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
        # Trainings that were done before their clients are called; see fedexp.federation.together.
        self.ahead: dict[int, Ahead] = {}

    def train(self, client: int, server_round: int, order: Order, state: State) -> Reply:
        """Do a round's work for one client.

        Raises:
            DroppedOutError: If the client fails in this round, as ``clients.dropout`` has it.
        """
        ahead = self.ahead.pop(client, None)
        job = self.job(ClientJob, client, server_round, order, state)
        job.ahead = ahead
        self.run(job)
        reply = job.reply()
        if reply.weights is not None and self._is_faulty(client, order):
            sent = faulty_weights(
                self.config, self._attack, job.order.weights, reply.weights, server_round, client
            )
            reply = dataclasses.replace(reply, weights=sent)
        if self.kept and reply.weights is not None:
            reply = dataclasses.replace(reply, weights=without(reply.weights, self.kept))
        return reply

    def job(
        self, kind: type[Kind], client: int, server_round: int, order: Order, state: State
    ) -> Kind:
        """Return what a client is given to do in a round.

        Raises:
            DroppedOutError: If the client fails in this round.
        """
        config, union = self.config, order.examples_of
        whole = self._whole(order, state)
        if not union:  # nothing goes wrong with the upper reference
            drop_out(config, server_round, client)
        examples = self.data.train_examples(union or [client])
        if self._is_faulty(client, order):
            examples = faulty_examples(
                config, self._attack, examples, self.data.spec.num_classes, client
            )
        if union:
            steps = union_steps(config.training, len(examples), len(union))
        else:
            steps = steps_of(config, server_round, client, len(examples))
        return kind(self, client, server_round, whole, state, examples, steps)

    def run(self, job: ClientJob) -> None:
        """Have the strategy's client do a job."""
        with self.trainer.turn(job.round, job.client):
            self._side.run(job)

    def _is_faulty(self, client: int, order: Order) -> bool:
        return not order.examples_of and client in self._faulty

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


TUNED_STEPS = "tuned-steps"
"""What the server says where a client is to train before it is tested."""
