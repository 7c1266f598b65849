"""What the backends have in common: one client called on one message, and the ServerApp."""

from __future__ import annotations

import copy
from collections.abc import Callable

from flwr.app import ArrayRecord, Context, Message, Metadata, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from fedexp.core import forked
from fedexp.flower.calling import answer
from fedexp.flower.grid import RUN_ID, CohortGrid
from fedexp.flower.messages import NUM_PARTITIONS, PARTITION_ID, own

TRIES = 2
"""How often a client whose worker died is asked again: somebody else may have killed it."""

GRACE = 30.0
"""Seconds beyond the time of its clients until a task is given up: its worker may have to start first."""

Work = tuple[Metadata, int, RecordDict]
"""A message's metadata, the position of its content among the contents sent along, client state."""

Body = Callable[[CohortGrid], None]
"""The body of the ServerApp; it must take clients only from the grid's ``cohort``."""


def run_server(grid: CohortGrid, server: Body) -> None:
    """Run a server function as the body of a Flower ServerApp."""
    forked.has_trained = True
    app = ServerApp()

    @app.main()
    def main(grid: Grid, _: Context) -> None:
        assert isinstance(grid, CohortGrid)
        server(grid)

    app(grid, Context(RUN_ID, 0, {}, RecordDict(), {}))


def call_client(
    app: ClientApp,
    message: Message,
    num_partitions: int,
    state: RecordDict,
    *,
    timeout: float | None = None,
    in_worker: bool = False,
) -> tuple[Message, RecordDict]:
    """Run one client on one message.

    Args:
        app: The client app.
        message: Its ``dst_node_id`` is the partition id.
        num_partitions: Number of clients in all.
        state: What the client put into its ``Context`` last time.
        timeout: Seconds that the client may take; None is for ever.
        in_worker: Whether this process serves clients only.

    Returns:
        The reply, which carries an error if the client has none, and the client's state after it.
    """
    client = message.metadata.dst_node_id
    context = Context(
        run_id=message.metadata.run_id,
        node_id=client,
        node_config={PARTITION_ID: client, NUM_PARTITIONS: num_partitions},
        state=copy.deepcopy(state),  # a client that fails must leave its state as it was
        run_config={},
    )
    reply = answer(app, message, context, timeout=timeout, in_worker=in_worker)
    return reply, state if reply.has_error() else context.state


def worker_died(error: str) -> str:
    """Return the reason of a client whose worker died every time it was asked."""
    return f"its worker died, {TRIES + 1} times ({error})"


def kept(state: RecordDict) -> RecordDict:
    """Copy the arrays that a client keeps: they may be the server's, or lie in Ray's object store."""
    for name, record in list(state.items()):
        if isinstance(record, ArrayRecord):
            state[name] = own(record)
    return state
