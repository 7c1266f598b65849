"""What a usable reply is; decided here and nowhere else.

Flower's strategies check that replies agree with each other, not that they agree with the model, and
let a NaN through: one such client would end the run, or silently spoil the model for all. A reply that
passes the gate can be combined by every strategy; one that does not costs its client the round.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict

from fedexp.config.schema import Config
from fedexp.core.replies import one_line, told
from fedexp.core.roles import Number, Order, Update
from fedexp.core.weights import Weights, completed, without
from fedexp.federation.faults import byzantine_clients
from fedexp.federation.overflow import LARGEST_INTEGER, NOT_FINITE, size_problem
from fedexp.flower.messages import ARRAYS, METRICS, NUM_EXAMPLES, TRAIN_LOSS
from fedexp.flower.reading import UnreadableError, read_array
from fedexp.strategies.base import carried

Arrays = Mapping[str, npt.NDArray[Any]]


class UnusableReplyError(Exception):
    """A reply that must not be used; the message says why, in one line."""


@dataclass(frozen=True)
class Holdings:
    """How many examples each client holds, where the server knows it, as in a simulation.

    Attributes:
        train: From a partition id to its training examples.
        test: From a partition id to test examples of its own.
    """

    train: Callable[[int], int]
    test: Callable[[int], int]


@dataclass(frozen=True)
class Tested:
    """What a client measured on its own test examples."""

    client: int
    num_examples: int
    numbers: Mapping[str, float]


class Gate:
    """Makes an update, or a client's measurements, of a reply, or says why it cannot be used.

    Args:
        config: The experiment.
        parameters: Names of what gradients move.
        holdings: How many examples each client holds; None where nobody knows.
        kept: The model's entries that clients do not send; an update has the model's own there.
        problem: Says of an update that is sound otherwise why the strategy cannot combine it, or None.
    """

    def __init__(
        self,
        config: Config,
        parameters: Sequence[str],
        holdings: Holdings | None = None,
        kept: frozenset[str] = frozenset(),
        problem: Callable[[Update], str | None] | None = None,
    ) -> None:
        self._strategy, self._carries = config.strategy, carried(config.strategy)
        self._measured = tuple(dict.fromkeys(["loss", *config.measured]))
        self._parameters, self._holdings = parameters, holdings
        self._faulty, self._kept = frozenset(byzantine_clients(config)), kept
        self._problem = problem

    def update(self, reply: Message, server_round: int, order: Order, model: Weights) -> Update:
        """Read a reply to training.

        Args:
            reply: What came back.
            server_round: The round whose model the client was sent.
            order: What it was sent.
            model: The global model; decides names, order, shapes and dtypes.

        Raises:
            UnusableReplyError: If it must not be combined.
        """
        with _refusing():
            return self._update(reply, server_round, order, model)

    def tested(self, reply: Message) -> Tested:
        """Read a reply to an evaluation.

        Raises:
            UnusableReplyError: If it must not be used.
        """
        with _refusing():
            client, content = reply.metadata.src_node_id, _content(reply)
            numbers = _numbers(content)
            _agree("records", content, (METRICS,))
            most = None if self._holdings is None else self._holdings.test(client)
            count = _count(numbers, 0, most)
            _agree("metrics", numbers, self._measured)
            found = {name: float(numbers[name]) for name in self._measured}
            return Tested(client, count, found)

    def personal(self, reply: Message, model: Weights) -> tuple[int, Weights]:
        """Read a client's own model, which it is tested with.

        Raises:
            UnusableReplyError: If it cannot be tested.
        """
        with _refusing():
            client, content = reply.metadata.src_node_id, _content(reply)
            record = content.get(ARRAYS)
            if not isinstance(record, ArrayRecord):
                raise UnusableReplyError(f"the reply holds no weights ({ARRAYS})")
            weights = _read(record, model)
            problem = form_problem(weights, model)
            if problem:
                raise UnusableReplyError(problem)
            return client, weights

    def _update(self, reply: Message, server_round: int, order: Order, model: Weights) -> Update:
        client, content = reply.metadata.src_node_id, _content(reply)
        numbers = _numbers(content)
        count = _count(numbers, 1, self._most(client, order))
        record = content.get(ARRAYS)
        if not isinstance(record, ArrayRecord):
            raise UnusableReplyError(f"the reply holds no weights ({ARRAYS})")
        if self._carries is None:
            further = _whatever(content, model)
        else:
            further = self._further(content, numbers, model)
        loss = numbers.pop(TRAIN_LOSS, None)
        if isinstance(loss, list):
            raise UnusableReplyError(f"metric {TRAIN_LOSS} must be one number")
        weights = _read(record, without(model, self._kept) if self._kept else model)
        if self._kept:
            weights = completed(weights, model)
        problem = size_problem(weights, model, squared=self._strategy.squares_weights)
        if problem:
            raise UnusableReplyError(problem)
        told_loss = None if loss is None else float(loss)
        update = Update(client, server_round, weights, count, told_loss, further, numbers)
        problem = None if self._problem is None else self._problem(update)
        if problem:
            raise UnusableReplyError(problem)
        return update

    def _further(
        self, content: RecordDict, numbers: Mapping[str, Any], model: Weights
    ) -> dict[str, Weights]:
        """Hold a reply to what the strategy's page says that it carries."""
        carries = self._carries
        assert carries is not None
        _agree("records", content, (METRICS, ARRAYS, *carries.arrays, *carries.free))
        _agree("metrics", numbers, (*((TRAIN_LOSS,) if carries.loss else ()), *carries.numbers))
        for name, (lowest, highest) in carries.numbers.items():
            value = numbers[name]
            if isinstance(value, list) or not lowest <= value <= highest:
                raise UnusableReplyError(
                    f"metric {name} must be a number from {lowest:g} to {highest:g}, got {value}"
                )
        like = {name: model[name] for name in self._parameters} if carries.arrays else {}
        found = {name: _read_further(name, content[name], like) for name in carries.arrays}
        free = {name: _read_further(name, content[name], {}, others=True) for name in carries.free}
        return {**found, **free}

    def _most(self, client: int, order: Order) -> int | None:
        # What a simulated fault trains on is for its page to say: it may add examples of its own.
        if self._holdings is None or (client in self._faulty and not order.examples_of):
            return None
        return sum(self._holdings.train(k) for k in order.examples_of or (client,))


@contextmanager
def _refusing() -> Iterator[None]:
    """Turn whatever reading a reply raises into a refusal: nobody knows what a client has sent."""
    try:
        yield
    except UnusableReplyError as error:
        raise UnusableReplyError(one_line(str(error))) from None
    except UnreadableError as error:
        raise UnusableReplyError(one_line(f"parameter {error}")) from None
    except Exception as error:
        raise UnusableReplyError(one_line(f"the reply cannot be read: {told(error)}")) from None


def _content(reply: Message) -> RecordDict:
    if reply.has_error():
        raise UnusableReplyError(
            reply.error.reason or f"error {reply.error.code}, without a reason"
        )
    return reply.content


def _numbers(content: RecordDict) -> dict[str, Any]:
    """Return the metrics of a reply, all of them finite."""
    record = content.get(METRICS)
    if not isinstance(record, MetricRecord):
        raise UnusableReplyError(f"the reply holds no metrics ({METRICS})")
    numbers = dict(record.items())
    for name, value in numbers.items():
        if name != NUM_EXAMPLES:
            for number in value if isinstance(value, list) else (value,):
                if not _is_finite(number):
                    raise UnusableReplyError(f"metric {name} is {_short(value)}")
    return numbers


def _is_finite(number: Number) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # an integer that no float holds
        return False


def _count(numbers: dict[str, Any], fewest: int, most: int | None) -> int:
    """Take the number of examples out of the metrics."""
    count = numbers.pop(NUM_EXAMPLES, None)
    if type(count) is not int or count < fewest:
        raise UnusableReplyError(
            f"{NUM_EXAMPLES} must be a whole number >= {fewest}, got {_short(count)}"
        )
    if count > (LARGEST_INTEGER if most is None else most):
        held = "can be computed with" if most is None else f"the {most} that the client holds"
        raise UnusableReplyError(f"{NUM_EXAMPLES} is {_short(count)}, more than {held}")
    return count


def _short(value: Any) -> str:
    """Write a value that may be as long as a book."""
    if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
        return "an integer beyond 2**53"
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _agree(what: str, found: Mapping[str, Any], wanted: Sequence[str]) -> None:
    if found.keys() != set(wanted):
        missing, extra = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
        raise UnusableReplyError(
            f"other {what} than the strategy's (missing {missing}, unexpected {extra})"
        )


def _whatever(content: RecordDict, model: Weights) -> dict[str, Weights]:
    """Read arrays of which the page says nothing; what is named as the model's must be like it."""
    return {
        name: _read_further(name, record, {p: model[p] for p in record if p in model}, others=True)
        for name, record in content.items()
        if isinstance(record, ArrayRecord) and name != ARRAYS
    }


def _read_further(name: str, record: Any, like: Weights, *, others: bool = False) -> Weights:
    if not isinstance(record, ArrayRecord):
        raise UnusableReplyError(f"{name} holds no arrays")
    try:
        arrays = _read(record, like, others=others)
    except (UnusableReplyError, UnreadableError) as error:
        kind = "parameter " if isinstance(error, UnreadableError) else ""
        raise UnusableReplyError(f"{name}: {kind}{error}") from None
    # Where nothing is said of them, integers may be masks or codes, which nobody averages.
    judged = {n: a for n, a in arrays.items() if a.dtype.kind == "f"} if others else arrays
    problem = size_problem(judged)
    if problem:
        raise UnusableReplyError(f"{name}: {problem}")
    return arrays


def _read(record: ArrayRecord, like: Weights, *, others: bool = False) -> Weights:
    """Return a record's arrays, in the order of those that they must be like."""
    if not others and record.keys() != like.keys():
        raise UnusableReplyError(_names_problem(record, like))
    found = {name: read_array(name, record[name], like[name]) for name in like}
    for name in record if others else ():
        if name not in like:
            found[name] = read_array(name, record[name], None)
    return found


def _names_problem(found: Mapping[str, Any], reference: Arrays) -> str:
    missing, extra = sorted(set(reference) - set(found)), sorted(set(found) - set(reference))
    return f"other parameters than the model's (missing {missing}, unexpected {extra})"


def form_problem(weights: Arrays, reference: Arrays) -> str | None:
    """Say why weights cannot be a model's, or None if they can.

    Args:
        weights: What somebody made.
        reference: The global model; decides names, shapes and dtypes.
    """
    if weights.keys() != reference.keys():
        return _names_problem(weights, reference)
    for name, array in weights.items():
        expected = reference[name]
        if array.shape != expected.shape or array.dtype != expected.dtype:
            return (
                f"parameter {name} is {array.dtype}{array.shape}, "
                f"the model's is {expected.dtype}{expected.shape}"
            )
        if not np.isfinite(array).all():
            return f"parameter {name} {NOT_FINITE}"
    return None


@contextmanager
def letting_go() -> Iterator[None]:
    """Run a block that reads replies, and keep nothing of them alive after it.

    Flower's views of a message (``array_records``) are reference cycles. Were garbage collected in the
    block, the view at hand would pass into a generation that is hardly ever collected, and a whole task's
    replies would stay in Ray's object store with it; the next ones then lie in memory never touched
    before, which costs a round of many small clients a tenth.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.collect(1)  # what the block left is young
        if enabled:
            gc.enable()
