"""FedNova: updates are divided by the steps behind them before they are averaged.

Wang et al., "Tackling the Objective Inconsistency Problem in Heterogeneous Federated Optimization",
arXiv 2007.07481: ``x += tau_eff * sum p_i (y_i - x) / a_i`` with ``tau_eff = sum p_i a_i``, where ``p_i``
is the client's share of examples and ``a_i`` its gradient mass (its steps, when there is no momentum).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from fedexp.flower.arrays import to_record, to_weights, weights_in
from fedexp.flower.protocol import ARRAYS, GRADIENT_MASS, METRICS, NUM_EXAMPLES
from fedexp.models.networks import Weights


class FedNova(FedAvg):
    """FedAvg of normalised updates."""

    _weights: Weights

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask clients for the gradient mass of their steps."""
        self._weights = to_weights(arrays)
        config[GRADIENT_MASS] = True
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average the updates per unit of gradient mass, and scale by the mean mass."""
        contents = [reply.content for reply in replies]
        metrics = [content.metric_records[METRICS] for content in contents]
        examples = np.array([m[NUM_EXAMPLES] for m in metrics], dtype=np.float64)
        mass = np.array([m[GRADIENT_MASS] for m in metrics], dtype=np.float64)
        shares = examples / examples.sum()
        factors = (shares @ mass) * shares / mass
        moved = {name: array.astype(np.float64) for name, array in self._weights.items()}
        for factor, content in zip(factors, contents, strict=True):
            for name, array in weights_in(content, ARRAYS).items():
                moved[name] += factor * (array - self._weights[name])
        weights = {name: moved[name].astype(a.dtype) for name, a in self._weights.items()}
        return to_record(weights), self.train_metrics_aggr_fn(contents, self.weighted_by_key)
