"""Flower's strategies as the server's side of a strategy, unmodified: the one adapter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import Strategy

from fedexp.core.options import FedexpError
from fedexp.core.roles import Order, Server, Update, Updates
from fedexp.core.state import is_code
from fedexp.core.updates import BLOCK, cut
from fedexp.core.weights import Weights
from fedexp.flower.grid import CohortView
from fedexp.flower.messages import (
    ARRAYS,
    CONFIG,
    METRICS,
    NUM_EXAMPLES,
    SERVER_ROUND,
    TRAIN_LOSS,
    Array,
    dtype_name,
    to_record,
    to_weights,
)

WHOLE_COHORT: dict[str, Any] = {
    "fraction_train": 1.0,
    "fraction_evaluate": 1.0,
    "min_train_nodes": 1,
    "min_evaluate_nodes": 1,
    "min_available_nodes": 1,
}
"""Options for Flower's strategies. The round loop draws the cohort and shows the strategy nothing else,
so the strategy takes all it sees. Flower's default minimum of 2 waits for ever for a single client."""


class FlowerServer(Server):
    """A Flower ``Strategy`` behind the interface of ``Server``; a user's own goes in the same way.

    It says what clients are sent and combines what they send; evaluation is the round loop's. Its
    ``configure_train`` sees a grid that holds the round's cohort and nothing else.

    Args:
        strategy: Of ``flwr.serverapp.strategy``, or a subclass; give it :data:`WHOLE_COHORT`.
        before_round: Called with the round before the strategy is asked what to send.
        reads: What the strategy needs of a cohort at a time; results are the same. A strategy of which
            nothing is known gets everything. One that goes through replies once, and keeps what it
            computes, not the arrays, can do with ``"one by one"``; one that looks at every coordinate
            alone, and has no state, with ``"coordinates"``.
        memory: What :meth:`Server.memory` is to say; by default, copies of all updates where the strategy
            gets everything, else nothing.
    """

    def __init__(
        self,
        strategy: Strategy,
        before_round: Callable[[int], None] = lambda t: None,
        reads: Literal["everything", "one by one", "coordinates"] = "everything",
        memory: Callable[[int, Weights], int] | None = None,
    ) -> None:
        self.strategy, self._reads, self._memory = strategy, reads, memory
        self._before_round = before_round
        self._asked: dict[int, Message] = {}
        self._loss: float | None = None

    def instruct(self, t: int, model: Weights, cohort: Sequence[int]) -> dict[int, Order]:
        """Have the strategy configure the round."""
        self._before_round(t)
        record, grid = to_record(model), CohortView(cohort)
        asked = self.strategy.configure_train(t, record, ConfigRecord(), grid)
        self._asked = {message.metadata.dst_node_id: message for message in asked}
        orders: dict[int, Order] = {}
        for message in self._asked.values():  # those of a round mostly share their content
            content = message.content
            if id(content) not in orders:
                orders[id(content)] = _order(content, record, model)
        return {client: orders[id(message.content)] for client, message in self._asked.items()}

    def combine(self, t: int, model: Weights, updates: Updates) -> Weights:
        """Have the strategy aggregate copies of what clients sent: some of Flower's compute in place.

        Raises:
            FedexpError: If the strategy returns no weights.
        """
        if self._reads == "coordinates":
            return by_blocks(updates, lambda some: self._aggregate(t, some))
        return self._aggregate(t, updates)

    def memory(self, count: int, model: Weights) -> int:
        """Return the bytes that the strategy needs at least."""
        if self._memory is not None:
            return self._memory(count, model)
        everything = self._reads == "everything"
        return count * sum(array.nbytes for array in model.values()) if everything else 0

    def _aggregate(self, t: int, updates: Updates) -> Weights:
        like = updates[0].weights if self._reads == "one by one" else None
        replies = [
            Message(_content(update, like), reply_to=self._asked[update.client])
            for update in updates
        ]
        arrays, metrics = self.strategy.aggregate_train(t, replies)
        if arrays is None:
            raise FedexpError(
                f"round {t}: {type(self.strategy).__name__} made no model of {len(replies)} replies"
            )
        loss = (metrics or MetricRecord()).get(TRAIN_LOSS)
        self._loss = loss if isinstance(loss, float) else None
        return to_weights(arrays)

    def loss(self, updates: Updates) -> float | None:
        """Return the training loss as the strategy averages it."""
        return self._loss

    def state(self) -> dict[str, Any]:
        """Return what the strategy has in its attributes."""
        return {"loss": self._loss, "strategy": _state(self.strategy)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Give the strategy its attributes back."""
        self._loss = state["loss"]
        _restore(self.strategy, state["strategy"])


def _state(strategy: Strategy) -> dict[str, Any]:
    """Return a Flower strategy's attributes: records as arrays, a strategy in it as its attributes."""
    kept: dict[str, Any] = {}
    for name, value in vars(strategy).items():
        if isinstance(value, ArrayRecord):
            kept[name] = {_RECORD: {key: array.numpy() for key, array in value.items()}}
        elif isinstance(value, Strategy):
            kept[name] = {_INNER: _state(value)}
        elif not is_code(value):
            kept[name] = value
    return kept


def _restore(strategy: Strategy, kept: Mapping[str, Any]) -> None:
    for name, value in kept.items():
        if isinstance(value, dict) and list(value) == [_RECORD]:
            vars(strategy)[name] = to_record(value[_RECORD])
        elif isinstance(value, dict) and list(value) == [_INNER]:
            _restore(vars(strategy)[name], value[_INNER])
        else:
            vars(strategy)[name] = value


_RECORD, _INNER = "fedexp: an ArrayRecord", "fedexp: a Strategy"


def _order(content: RecordDict, sent: ArrayRecord, model: Weights) -> Order:
    """Return a strategy's message in our words; the record of weights is the one called ``arrays``."""
    further = {
        name: to_weights(record)
        for name, record in content.items()
        if isinstance(record, ArrayRecord) and name != ARRAYS
    }
    told = content.get(CONFIG)
    numbers: dict[str, Any] = dict(told.items()) if isinstance(told, ConfigRecord) else {}
    numbers.pop(SERVER_ROUND, None)
    record = content[ARRAYS]
    assert isinstance(record, ArrayRecord)
    return Order(model if record is sent else to_weights(record), further, numbers)


class Fresh(Array):
    """An array of an update that is copied, or read from a file, whenever somebody asks for it."""

    def __init__(self, update: Update, name: str, like: npt.NDArray[Any]) -> None:
        vars(self).update(dtype=dtype_name(like.dtype), shape=like.shape, stype="numpy.ndarray")
        self._update, self._name = update, name

    @property
    def _array(self) -> npt.NDArray[Any]:  # type: ignore[override]  # an attribute of who keeps it
        return self._update.entry(self._name).copy()

    _update: Update
    _name: str


def _content(update: Update, like: Weights | None) -> RecordDict:
    """Return an update as Flower's strategies want it: one record of arrays, one of metrics.

    Args:
        update: What a client sent.
        like: What its weights are like, where they are not to be copied before they are asked for.
    """
    arrays = ArrayRecord()
    if like is None:
        for name, array in update.weights.items():
            arrays[name] = Array(array.copy(), writable=True)
    else:
        for name, array in like.items():
            arrays[name] = Fresh(update, name, array)
    metrics: dict[str, Any] = {NUM_EXAMPLES: update.num_examples, **update.numbers}
    if update.loss is not None:
        metrics[TRAIN_LOSS] = update.loss
    return RecordDict({ARRAYS: arrays, METRICS: MetricRecord(metrics)})


def by_blocks(updates: Updates, aggregate: Callable[[Updates], Weights]) -> Weights:
    """Have every coordinate aggregated, in blocks of up to ``BLOCK`` bytes of all updates together.

    Args:
        updates: Of a round.
        aggregate: Looks at each coordinate alone.
    """
    first = updates[0].weights
    blocks = _blocks(first, len(updates))
    if len(blocks) == 1:
        return aggregate(updates)
    found: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in first}
    for block in blocks:
        some = Updates([_restricted(update, block) for update in updates])
        for name, array in aggregate(some).items():
            found[name].append(array.ravel())
    return {name: np.concatenate(found[name]).reshape(like.shape) for name, like in first.items()}


_Block = dict[str, slice | None]
"""Names of arrays, and which of their coordinates; None is all of them."""


def _blocks(like: Weights, count: int) -> list[_Block]:
    """Return the parts of so many models that are aggregated at a time."""
    blocks, left = list[_Block](), 0
    for name, array in like.items():
        size = array.nbytes * count
        if size > BLOCK:
            blocks += [{name: where} for where in cut(array.size, count * array.itemsize)]
            left = 0
        elif size > left:
            blocks.append({name: None})
            left = BLOCK - size
        else:
            blocks[-1][name] = None
            left -= size
    return blocks


def _restricted(update: Update, block: _Block) -> Update:
    some = {name: update.entry(name, where) for name, where in block.items()}
    return Update(
        update.client, update.round, some, update.num_examples, update.loss, {}, update.numbers
    )
