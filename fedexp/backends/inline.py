"""``backend=inline``: clients in this process, one after another; those of equal work together."""

from __future__ import annotations

from collections.abc import Iterator

from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp

from fedexp.backends.base import Body, call_client, kept, run_server
from fedexp.backends.stacks import stacks, train_ahead
from fedexp.config.schema import Config
from fedexp.data.federated import FederatedData
from fedexp.federation.client import ClientNode
from fedexp.federation.together import Together
from fedexp.flower.app import client_app
from fedexp.flower.grid import CohortGrid


class InlineGrid(CohortGrid):
    """Run clients in this process, one after another."""

    asks_again = True

    def __init__(
        self, app: ClientApp, num_partitions: int, together: Together | None = None
    ) -> None:
        super().__init__()
        self._app, self._num_partitions, self._together = app, num_partitions, together

    def exchange(self, messages: list[Message]) -> Iterator[Message]:
        """Run the clients in order, each when its reply is asked for; those of equal work together."""
        done = 0
        for stack in stacks(messages, self._together):
            if self._together is not None:
                train_ahead(self._together, stack, self.states)
            for message in stack:
                client = message.metadata.dst_node_id
                state = self.states.get(client, RecordDict())
                reply, state = call_client(self._app, message, self._num_partitions, state)
                self.keep(client, kept(state))
                done += 1
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
    node = ClientNode(config, lambda: data)
    run_server(InlineGrid(client_app(node), config.clients.num, Together(node)), server)
