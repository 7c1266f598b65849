"""Isolated clients, through the same round loop: a strategy that never aggregates.

Every client starts from the same initial weights and from then on gets back what it sent itself, so
its curve lies beside the federated one at the same budget.
"""

from __future__ import annotations

from collections.abc import Iterable

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from fedexp.flower.arrays import own
from fedexp.flower.protocol import ARRAYS, CONFIG, SERVER_ROUND


class LocalOnly(FedAvg):
    """Keep one model per client and never mix them.

    Attributes:
        local_arrays: Partition id -> the weights that client sent last.
        updated: Partition ids whose weights changed in the last round.
    """

    def __init__(self) -> None:
        super().__init__(min_train_nodes=1, min_evaluate_nodes=1, min_available_nodes=1)
        self.local_arrays: dict[int, ArrayRecord] = {}
        self.updated: list[int] = []

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send every client its own weights, or the initial ones the first time."""
        return self._own_weights(server_round, arrays, config, grid, MessageType.TRAIN)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let every client evaluate its own weights."""
        return self._own_weights(server_round, arrays, config, grid, MessageType.EVALUATE)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Keep what each client sent; there is no new global model."""
        replies = list(replies)
        self.updated = [reply.metadata.src_node_id for reply in replies]
        for client, reply in zip(self.updated, replies, strict=True):
            record = reply.content[ARRAYS]
            assert isinstance(record, ArrayRecord)
            self.local_arrays[client] = own(record)
        return None, self.train_metrics_aggr_fn([r.content for r in replies], self.weighted_by_key)

    def _own_weights(
        self,
        server_round: int,
        arrays: ArrayRecord,
        config: ConfigRecord,
        grid: Grid,
        message_type: str,
    ) -> Iterable[Message]:
        config[SERVER_ROUND] = server_round
        return [
            Message(
                RecordDict({ARRAYS: self.local_arrays.get(client, arrays), CONFIG: config}),
                dst_node_id=client,
                message_type=message_type,
            )
            for client in grid.get_node_ids()
        ]
