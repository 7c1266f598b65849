"""The Flower ``ClientApp`` around what clients do."""

from __future__ import annotations

from typing import Protocol

from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp

from fedexp.core.roles import Order, State
from fedexp.flower.calling import answer
from fedexp.flower.messages import (
    CONFIG,
    PARTITION_ID,
    Reply,
    pack_reply,
    pack_state,
    unpack_order,
    unpack_state,
)

STATE, RESTORE, TAKE_BACK, PERSONALISE = "state", "restore", "take_back", "personalise"
"""Queries: what a client keeps; what it is to keep from now on; that what it sent last was refused; and
which model it is tested with."""


class Node(Protocol):
    """What clients do; holds nothing of any one client."""

    def train(self, client: int, server_round: int, order: Order, state: State) -> Reply:
        """Train on a client's examples; ``state`` lasts until its next call."""

    def evaluate(self, client: int, server_round: int, order: Order, state: State) -> Reply:
        """Test a model on a client's share of the test examples."""

    def personalise(self, client: int, server_round: int, order: Order, state: State) -> Reply:
        """Return the model that a client is tested with."""


class WorkerApp(ClientApp):
    """An app for Flower's own runtime: every call has a reply, and a client can take back its last one.

    Args:
        timeout: Seconds that a call may take; None is for ever.
    """

    def __init__(self, timeout: float | None = None) -> None:
        super().__init__()
        self._timeout = timeout

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer a message; what the client kept before it trained is kept beside what it keeps now."""
        kept, before = _split(context.state)
        kind = message.metadata.message_type
        context.state = before if kind == f"query.{TAKE_BACK}" else kept
        now = RecordDict(dict(kept))
        reply = answer(super().__call__, message, context, timeout=self._timeout, in_worker=True)
        if reply.has_error():
            context.state = now
        elif kind == MessageType.TRAIN:
            for name, record in now.items():
                context.state[f"{_BEFORE}{name}"] = record
        return reply


_BEFORE = "before: "


def _split(state: RecordDict) -> tuple[RecordDict, RecordDict]:
    """Return what a client keeps, and what it kept before."""
    kept, before = RecordDict(), RecordDict()
    for name, record in state.items():
        if name.startswith(_BEFORE):
            before[name.removeprefix(_BEFORE)] = record
        else:
            kept[name] = record
    return kept, before


def client_app(node: Node, app: ClientApp | None = None) -> ClientApp:
    """Build the app that runs on every client.

    A client exists only while it is called; what has to last from one call to the next is kept in
    Flower's ``Context``. Asked for it, it says which partition its node holds, and what it keeps.

    Args:
        node: What clients do.
        app: An empty app to fill; None makes one.
    """
    app = app or ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        client = int(context.node_config[PARTITION_ID])
        order, server_round = unpack_order(message.content)
        state = unpack_state(context.state)
        reply = node.train(client, server_round, order, state)
        if state or len(context.state):
            pack_state(state, context.state)
        return Message(pack_reply(reply), reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        client = int(context.node_config[PARTITION_ID])
        order, server_round = unpack_order(message.content)
        reply = node.evaluate(client, server_round, order, unpack_state(context.state))
        return Message(pack_reply(reply), reply_to=message)

    @app.query(PERSONALISE)
    def personalise(message: Message, context: Context) -> Message:
        client = int(context.node_config[PARTITION_ID])
        order, server_round = unpack_order(message.content)
        reply = node.personalise(client, server_round, order, unpack_state(context.state))
        return Message(pack_reply(reply), reply_to=message)

    @app.query()
    def which_partition(message: Message, context: Context) -> Message:
        answer = ConfigRecord({PARTITION_ID: int(context.node_config[PARTITION_ID])})
        return Message(RecordDict({CONFIG: answer}), reply_to=message)

    @app.query(STATE)
    def tell_state(message: Message, context: Context) -> Message:
        return Message(RecordDict(dict(context.state)), reply_to=message)

    @app.query(RESTORE)
    def restore_state(message: Message, context: Context) -> Message:
        context.state.clear()
        for name, record in message.content.items():
            context.state[name] = record
        return Message(RecordDict(), reply_to=message)

    @app.query(TAKE_BACK)
    def take_back(message: Message, context: Context) -> Message:
        return Message(RecordDict(), reply_to=message)

    return app
