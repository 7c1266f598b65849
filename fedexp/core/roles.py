"""Server and client: the two sides of a strategy, and what passes between them.

A strategy's page subclasses :class:`Server`, :class:`Client` or both, and computes on plain NumPy
weights. Messages, processes, faults and checks are the round loop's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, overload

import numpy as np
import numpy.typing as npt

from fedexp.core.hooks import Loss, Rule
from fedexp.core.layers import Layers
from fedexp.core.state import is_code
from fedexp.core.weights import Weights

Number = int | float
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


@dataclass(frozen=True, eq=False)
class Update:
    """What one client sent back.

    Attributes:
        client: Partition id.
        round: The round whose model it started from.
        weights: What it trained; names, shapes and dtypes are the model's. Not to be written to.
        num_examples: Examples it trained on, >= 1.
        loss: Mean loss of its last epoch; None if it did not train.
        arrays: Further arrays by name.
        numbers: Numbers by name.
    """

    client: int
    round: int
    weights: Weights
    num_examples: int
    loss: float | None = None
    arrays: Mapping[str, Weights] = field(default_factory=dict)
    numbers: Mapping[str, Number] = field(default_factory=dict)


class Updates(Sequence[Update]):
    """A round's updates, in the order of clients; every one has passed the guards."""

    def __init__(self, updates: Sequence[Update]) -> None:
        self._updates = list(updates)

    @overload
    def __getitem__(self, index: int) -> Update: ...

    @overload
    def __getitem__(self, index: slice) -> Updates: ...

    def __getitem__(self, index: int | slice) -> Update | Updates:
        found = self._updates[index]
        return Updates(found) if isinstance(found, list) else found

    def __len__(self) -> int:
        return len(self._updates)

    def __iter__(self) -> Iterator[Update]:
        return iter(self._updates)

    def only(self, positions: Sequence[int]) -> Updates:
        """Return the updates at the given positions, in that order."""
        return Updates([self._updates[position] for position in positions])

    @property
    def shares(self) -> list[float]:
        """Each client's share of the examples; they sum to 1."""
        return shares_of([update.num_examples for update in self._updates])

    def mean(self, shares: Sequence[float] | None = None, of: str | None = None) -> Weights:
        """Return the weighted mean of the clients' weights.

        Args:
            shares: One factor per update; None weights by examples.
            of: Name of further arrays to average in place of the weights.

        Returns:
            Arrays that may be written to: ``sum(share * array)``, added in the order of clients in each
            array's own precision.
        """
        mean: dict[str, Any] = {}
        # A factor of NumPy's would make float64 of float32.
        factors = self.shares if shares is None else [float(share) for share in shares]
        for share, update in zip(factors, self._updates, strict=True):
            for name, array in (update.weights if of is None else update.arrays[of]).items():
                if name in mean:
                    mean[name] += array * share
                else:
                    mean[name] = array * share
        return {name: np.asarray(array) for name, array in mean.items()}

    def mean_loss(self) -> float | None:
        """Return the mean of the clients' training losses, weighted by examples; None if one has none."""
        losses = [update.loss for update in self._updates if update.loss is not None]
        if len(losses) < len(self._updates) or not losses:
            return None
        return weighted_mean(losses, [update.num_examples for update in self._updates])


def shares_of(counts: Sequence[float]) -> list[float]:
    """Return counts divided by their sum, which must not be 0."""
    total = sum(counts)
    return [count / total for count in counts]


def weighted_mean(values: Sequence[float], counts: Sequence[float]) -> float:
    """Return the mean of values weighted by counts, added in order."""
    terms = [value * share for value, share in zip(values, shares_of(counts), strict=True)]
    mean = terms[0]
    for term in terms[1:]:
        mean += term
    return mean


@dataclass(frozen=True)
class Setup:
    """What a server is told when it is made.

    Attributes:
        num_clients: Clients in all, >= 1.
        parameters: Names of what gradients move, in the model's order.
        buffers: Names of the model's entries that are no parameters, such as BatchNorm's statistics.
        learning_rate: From a round, which counts from 1, to the clients' learning rate in it.
    """

    num_clients: int
    parameters: tuple[str, ...]
    buffers: frozenset[str]
    learning_rate: Callable[[int], float]


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

    def label_counts(self) -> npt.NDArray[np.int64]:
        """Return how many of the client's examples have each label; of a classification only."""

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
    ``job.state``.
    """

    def run(self, job: Job) -> None:
        """Do a round's work and send the result."""
        job.send(job.train())

    def weights_to_test(self, job: Job) -> Weights:
        """Return the model that the client is tested with: the one it was sent, unless it has its own.

        A personalised strategy says here, too, what a newcomer gets, whose ``job.state`` is empty.
        """
        return job.model
