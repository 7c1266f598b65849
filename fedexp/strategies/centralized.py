"""The upper reference: the images of a round's clients train one model, as if they were one client's.

The same images, as often, in the same round as under FedAvg; with every client in every round that is
training on the union of all data. What goes wrong with clients does not go wrong here.
"""

from __future__ import annotations

from collections.abc import Iterable

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from fedexp.flower.protocol import ARRAYS, CONFIG, PARTITION_IDS, SERVER_ROUND


class Centralized(FedAvg):
    """FedAvg of the one node that is told to train on the whole cohort's images."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Instruct the first node of the cohort."""
        cohort = list(grid.get_node_ids())
        config[SERVER_ROUND], config[PARTITION_IDS] = server_round, cohort
        content = RecordDict({ARRAYS: arrays, CONFIG: config})
        return [Message(content, dst_node_id=cohort[0], message_type=MessageType.TRAIN)]
