"""``backend=inline``: every client in this process, one after another."""

from __future__ import annotations

from collections.abc import Iterator

from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp

from fedexp.backends.base import Body, call_client, kept, run_server
from fedexp.config.schema import Config
from fedexp.data.federated import FederatedData
from fedexp.federation.client import ClientNode
from fedexp.flower.app import client_app
from fedexp.flower.grid import CohortGrid


class InlineGrid(CohortGrid):
    """Run clients in this process, one after another."""

    asks_again = True

    def __init__(self, app: ClientApp, num_partitions: int) -> None:
        super().__init__()
        self._app, self._num_partitions = app, num_partitions

    def exchange(self, messages: list[Message]) -> Iterator[Message]:
        """Run the clients in order, each when its reply is asked for."""
        for done, message in enumerate(messages, start=1):
            client = message.metadata.dst_node_id
            state = self.states.get(client, RecordDict())
            reply, state = call_client(self._app, message, self._num_partitions, state)
            self.keep(client, kept(state))
            self.on_reply(done)
            yield reply
            del reply  # who took it may be done with it


def run(config: Config, data: FederatedData, server: Body, *, verbose: bool = False) -> None:
    """Run a server function against the clients of an experiment.

    Args:
        config: The experiment.
        data: What server and clients hold.
        server: The body of the ServerApp.
        verbose: Let Flower speak.
    """
    app = client_app(ClientNode(config, lambda: data))
    run_server(InlineGrid(app, config.clients.num), server)
