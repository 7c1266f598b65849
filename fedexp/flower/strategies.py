"""Flower's strategies as the server's side of a strategy, unmodified: the one adapter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import Strategy

from fedexp.core.options import FedexpError
from fedexp.core.roles import Order, Server, Update, Updates
from fedexp.core.state import is_code
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
    """

    def __init__(
        self, strategy: Strategy, before_round: Callable[[int], None] = lambda t: None
    ) -> None:
        self.strategy = strategy
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
        replies = [
            Message(_content(update), reply_to=self._asked[update.client]) for update in updates
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


def _content(update: Update) -> RecordDict:
    """Return an update as Flower's strategies want it: one record of arrays, one of metrics."""
    arrays = ArrayRecord()
    for name, array in update.weights.items():
        arrays[name] = Array(array.copy(), writable=True)
    metrics: dict[str, Any] = {NUM_EXAMPLES: update.num_examples, **update.numbers}
    if update.loss is not None:
        metrics[TRAIN_LOSS] = update.loss
    return RecordDict({ARRAYS: arrays, METRICS: MetricRecord(metrics)})
