"""Keep BatchNorm's buffers away from a server optimizer.

Flower's strategies treat every entry of a state dict as a weight. Adam on running variances makes them
negative, momentum on step counters lets them run away; so such a strategy is shown the parameters only,
and the buffers are averaged as FedAvg does (as Reddi et al., arXiv 2003.00295, do by having none).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Strategy
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

from fedexp.flower.protocol import ARRAYS, METRICS, NUM_EXAMPLES


class BuffersApart(Strategy):
    """A strategy for parameters, FedAvg for buffers.

    Args:
        inner: The strategy that parameters go through.
        buffers: Names of the entries that are no parameters.
    """

    def __init__(self, inner: FedAvg, buffers: Collection[str]) -> None:
        self._inner, self._buffers = inner, frozenset(buffers)
        self._order: list[str] = []

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let the inner strategy see the parameters; clients get everything."""
        self._order = list(arrays)
        parameters, _ = self._split(arrays)
        messages = list(self._inner.configure_train(server_round, parameters, config, grid))
        for message in messages:
            message.content[ARRAYS] = arrays
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Aggregate parameters by the inner strategy, buffers by their mean weighted by examples."""
        replies, kept = list(replies), []
        for reply in replies:
            parameters, buffers = self._split(reply.content.array_records[ARRAYS])
            reply.content[ARRAYS] = parameters
            kept.append(
                RecordDict({ARRAYS: buffers, METRICS: reply.content.metric_records[METRICS]})
            )
        arrays, metrics = self._inner.aggregate_train(server_round, replies)
        if arrays is None:
            return None, metrics
        means = aggregate_arrayrecords(kept, NUM_EXAMPLES)
        both = {**arrays, **means}
        record = ArrayRecord()
        for name in self._order:
            record[name] = both[name]
        return record, metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Pass on to the inner strategy."""
        return self._inner.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Pass on to the inner strategy."""
        return self._inner.aggregate_evaluate(server_round, replies)

    def summary(self) -> None:
        """Pass on to the inner strategy."""
        self._inner.summary()

    def _split(self, arrays: ArrayRecord) -> tuple[ArrayRecord, ArrayRecord]:
        parameters, buffers = ArrayRecord(), ArrayRecord()
        for name, array in arrays.items():
            (buffers if name in self._buffers else parameters)[name] = array
        return parameters, buffers
