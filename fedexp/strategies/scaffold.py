"""SCAFFOLD: clients correct their drift by control variates.

Karimireddy et al., "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning", arXiv 1910.06378,
with option II for the clients' control variates. Departures: updates and control variates are weighted
by examples, as FedAvg's are, which is the paper when all clients hold equally many; with momentum, the
steps of option II are counted by ``gradient_mass``, which is the paper without it.

``c`` must be the clients' weighted mean at all times. A mean over each round's cohort would not do: its
weights change with the cohort, and what the sum of the rounds is off by pulls every client for good.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords
from torch import Tensor, nn

from fedexp.flower.arrays import to_record, to_weights, weights_in
from fedexp.flower.protocol import ARRAYS, CONTROL, METRICS, NUM_EXAMPLES
from fedexp.models.networks import Weights


class Scaffold(FedAvg):
    """The server: ``x += eta (mean y_i - x)`` and ``c = sum n_i c_i / sum n_i``.

    The sums run over all clients; those not met yet count as zeros that hold as many examples as the
    others do on average.

    Attributes:
        control: Server control variate ``c``, float arrays named as the parameters; None before round 1.
    """

    def __init__(self, num_clients: int, server_learning_rate: float, **options: Any) -> None:
        super().__init__(**options)
        self._num_clients, self._rate = num_clients, server_learning_rate
        self._weights: Weights = {}
        self._examples: dict[int, float] = {}  # of the clients met so far
        self._total: Weights = {}  # sum n_i c_i
        self.control: Weights | None = None

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the control variate beside the weights."""
        self._weights = to_weights(arrays)
        if self.control is None:
            self.control = {name: np.zeros_like(array) for name, array in self._weights.items()}
            self._total = {name: np.zeros(a.shape) for name, a in self._weights.items()}
        control = to_record(self.control)
        messages = list(super().configure_train(server_round, arrays, config, grid))
        for message in messages:
            message.content[CONTROL] = control
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Move the weights by the clients' mean, and the control variate by the changes of theirs."""
        replies = list(replies)
        contents = [reply.content for reply in replies]
        mean = _mean_weights(contents)
        if self._rate != 1.0:
            mean = {
                name: before + self._rate * (mean[name] - before)
                for name, before in self._weights.items()
            }
        for reply in replies:
            self._add_control(reply)
        everybody = self._num_clients * float(np.mean(list(self._examples.values())))
        self.control = {
            name: (total / everybody).astype(self._weights[name].dtype)
            for name, total in self._total.items()
        }
        return to_record(mean), self.train_metrics_aggr_fn(contents, self.weighted_by_key)

    def _add_control(self, reply: Message) -> None:
        count = reply.content.metric_records[METRICS][NUM_EXAMPLES]
        assert isinstance(count, int | float)
        self._examples[reply.metadata.src_node_id] = count
        for name, change in weights_in(reply.content, CONTROL).items():
            self._total[name] += count * change.astype(np.float64)


def _mean_weights(contents: list[RecordDict]) -> Weights:
    """Return the mean of the clients' weights, weighted by examples."""
    alone = [RecordDict({ARRAYS: c[ARRAYS], METRICS: c[METRICS]}) for c in contents]
    return to_weights(aggregate_arrayrecords(alone, NUM_EXAMPLES))


class ClientControl:
    """The client: its control variate ``c_i``, kept in Flower's ``Context`` from call to call."""

    def __init__(self, message: Message, context: Context, model: nn.Module) -> None:
        self._state = context.state
        self._names = [name for name, _ in model.named_parameters()]
        self._server = weights_in(message.content, CONTROL)
        kept = context.state.array_records.get(CONTROL)
        zeros = {name: np.zeros_like(self._server[name]) for name in self._names}
        self._own = zeros if kept is None else to_weights(kept)

    def correction(self, device: torch.device) -> list[Tensor]:
        """Return what every gradient gains, ``c - c_i``, one tensor per parameter."""
        drift = (self._server[name] - self._own[name] for name in self._names)
        return [torch.from_numpy(array).to(device) for array in drift]

    def renew(self, before: Weights, after: Weights, scale: float) -> ArrayRecord:
        """Set ``c_i`` to ``c_i - c + (x - y) / scale`` and return its change.

        Args:
            before: The incoming weights ``x``.
            after: The trained weights ``y``.
            scale: Learning rate times the steps' gradient mass, > 0.
        """
        change = {
            name: (before[name] - after[name]) / np.float32(scale) - self._server[name]
            for name in self._names
        }
        renewed = {name: self._own[name] + change[name] for name in self._names}
        self._state[CONTROL] = to_record(renewed)
        return to_record(change)
