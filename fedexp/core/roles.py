"""Server and client: the two sides of a strategy, and what passes between them.

A strategy's page subclasses :class:`Server`, :class:`Client` or both, and computes on plain NumPy
weights. Messages, processes, faults and checks are the round loop's business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fedexp.core.hooks import Loss, Rule
from fedexp.core.layers import Layers
from fedexp.core.state import is_code
from fedexp.core.updates import Number, Update, Updates, shares_of, weighted_mean
from fedexp.core.weights import Weights

__all__ = [
    "Client",
    "Job",
    "Number",
    "Order",
    "Server",
    "Setup",
    "State",
    "Update",
    "Updates",
    "shares_of",
    "weighted_mean",
]

State = MutableMapping[str, Weights | Number | str]
"""What a client keeps from call to call: name -> named arrays, a number or a word."""


@dataclass(frozen=True, eq=False)
class Order:
    """What the server sends one client at the start of a round.

    Clients that get the same object share one copy on its way.

    Attributes:
        weights: The model to start from.
        arrays: Further arrays by name, such as ``{"control": {...}}``; they count as traffic.
        numbers: Numbers and words by name.
        examples_of: Clients whose examples are trained on in place of the client's own, as one data set:
            the upper reference, which no deployment allows. Nothing goes wrong with such a client.
    """

    weights: Weights
    arrays: Mapping[str, Weights] = field(default_factory=dict)
    numbers: Mapping[str, Number | str] = field(default_factory=dict)
    examples_of: tuple[int, ...] = ()


@dataclass(frozen=True)
class Setup:
    """What a server is told when it is made.

    Attributes:
        num_clients: Clients in all, >= 1.
        parameters: Names of what gradients move, in the model's order.
        buffers: Names of the model's entries that are no parameters, such as BatchNorm's statistics.
        learning_rate: From a round, which counts from 1, to the clients' learning rate in it.
        seed: The run's, for what the server draws.
        num_classes: Labels of the data set, >= 2; 0 where there are none.
        width: Numbers that the last layer takes of an example, where the strategy ``reads_features``;
            else 0.
    """

    num_clients: int
    parameters: tuple[str, ...]
    buffers: frozenset[str]
    learning_rate: Callable[[int], float]
    seed: int = 0
    num_classes: int = 0
    width: int = 0


class Server:
    """The server's side of a strategy, one object per run; this one is federated averaging.

    What it keeps in its attributes (arrays, numbers, dictionaries of them) is the strategy's state.
    """

    def instruct(self, t: int, model: Weights, cohort: Sequence[int]) -> dict[int, Order]:
        """Say what each client of a round is sent.

        Args:
            t: The round, from 1.
            model: The global model.
            cohort: Partition ids of the round's clients, in order.

        Returns:
            Partition id -> order; a client that is left out is not asked.
        """
        return dict.fromkeys(cohort, Order(model))

    def combine(self, t: int, model: Weights, updates: Updates) -> Weights:
        """Return the next global model; the same object where there is no new one.

        Args:
            t: The round, from 1.
            model: The global model that the round started from.
            updates: What the clients sent, one at least.
        """
        return updates.mean()

    def problem(self, update: Update) -> str | None:
        """Say in a line why an update must not be combined; None where it can be.

        Asked of every reply that has passed all other checks. Here stands what must hold of the records
        that ``Carries.free`` names, in which clients may have sent anything.
        """
        return None

    def memory(self, count: int, model: Weights) -> int:
        """Return the bytes that :meth:`combine` needs at least, beyond a few models.

        A run that needs more than there is, is refused before it starts. What goes through updates one by
        one, or by ``updates.blocks``, needs none.

        Args:
            count: Updates of a round.
            model: The global model.
        """
        return 0

    def models(self, model: Weights) -> dict[int | None, Weights]:
        """Return the models that are tested: None -> the global one, or partition id -> a client's own.

        A client's model that is the same object as in the round before is not tested again. Not asked
        where the strategy is ``personalised``.
        """
        return {None: model}

    def before_tests(self, model: Weights, clients: Sequence[int]) -> dict[int, Order]:
        """Say what clients are sent to make the models of that they are tested with.

        Asked where the strategy is ``personalised``; the default is the global model.
        """
        return dict.fromkeys(clients, Order(model))

    def loss(self, updates: Updates) -> float | None:
        """Return the training loss that the round reports; None if there is none."""
        return updates.mean_loss()

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of the server: its attributes, functions and classes left out.

        Arrays, numbers, words, NumPy generators, and dictionaries, lists, tuples and sets of them can be
        kept. A server that holds anything else overrides this and :meth:`restore`.
        """
        return {name: value for name, value in vars(self).items() if not is_code(value)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`state` returned, in a server that was made from the same options."""
        vars(self).update(state)


class Job(Protocol):
    """What a client is given to do in one round, and what it can do.

    Attributes:
        client: Partition id.
        round: The round, from 1.
        order: What the server sent.
        model: The weights in it; what stays with the client (``Strategy.keeps``) is its own, or as it was
            initially where it has not trained yet.
        state: What the client keeps from call to call; a client that fails keeps what it had. Its arrays
            are read-only: replace them.
        num_examples: Examples it trains on.
        steps: SGD steps that it is to take; fewer where it is a straggler.
        epoch_steps: SGD steps that go once over its examples.
        learning_rate: Of this round's steps.
        momentum: Of this round's steps.
        layers: The model's entries by layer.
        kept: Those that stay with the client.
    """

    client: int
    round: int
    order: Order
    model: Weights
    state: State
    num_examples: int
    steps: int
    epoch_steps: int
    learning_rate: float
    momentum: float
    layers: Layers
    kept: frozenset[str]

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of what gradients move, in the model's order."""

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
        """Take SGD steps on the client's examples.

        Args:
            start: Where to start; None is the model that was sent.
            steps: How many, >= 1; None is :attr:`steps`.
            only: Names of the parameters that move; None is all of them.
            pull: Adds ``pull * (w - toward)`` to every gradient, >= 0.
            toward: What weights are pulled towards; None is the model that was sent.
            correction: Added to every gradient: name -> array, one for every parameter that moves.
            rate: The learning rate, > 0; None is :attr:`learning_rate`.
            again: Whether to go through the examples in the order of the job's first training; else
                several trainings of a job go on drawing orders.
            loss: In place of the task's.
            rule: What is done in a step in place of taking the loss's gradient.

        Returns:
            The trained weights, a copy.
        """

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """The labels of the client's examples, shape (num_examples,); of a classification only."""

    def label_counts(self) -> npt.NDArray[np.int64]:
        """Return how many of the client's examples have each label; of a classification only."""

    def features(self, weights: Weights) -> npt.NDArray[np.float32]:
        """Return what a model's last layer takes of each of the client's examples.

        Args:
            weights: The model, which is run as it is in a test.

        Returns:
            Shape (num_examples, width), in the order of :attr:`labels`.
        """

    def loss(self, weights: Weights) -> float:
        """Return the mean loss of a model on all the client's training examples."""

    def send(
        self,
        weights: Weights,
        *,
        arrays: Mapping[str, Weights] | None = None,
        numbers: Mapping[str, Number] | None = None,
    ) -> None:
        """Answer the server; once a job. The loss sent along is that of the last training."""


class Client:
    """The client's side of a strategy; this one trains the model it is sent and sends it back.

    It has no state of its own, because any process may play any client: what lasts goes into
    ``job.state``. Where clients are trained together (``backend.stack``), :meth:`run` is begun once more
    than it is finished, up to the first ``job.train``.
    """

    def run(self, job: Job) -> None:
        """Do a round's work and send the result."""
        job.send(job.train())

    def weights_to_test(self, job: Job) -> Weights:
        """Return the model that the client is tested with: the one it was sent, unless it has its own.

        A personalised strategy says here, too, what a newcomer gets, whose ``job.state`` is empty.
        """
        return job.model
