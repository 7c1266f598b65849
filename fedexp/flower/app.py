"""The Flower ``ClientApp`` around what clients do."""

from __future__ import annotations

from typing import Protocol

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedexp.core.roles import Order, State
from fedexp.flower.messages import (
    CONFIG,
    PARTITION_ID,
    Reply,
    pack_reply,
    pack_state,
    unpack_order,
    unpack_state,
)

STATE, RESTORE = "state", "restore"
"""Queries for what a client keeps, and with what it is to keep from now on."""


class Node(Protocol):
    """What clients do; holds nothing of any one client."""

    def train(self, client: int, server_round: int, order: Order, state: State) -> Reply:
        """Train on a client's examples; ``state`` lasts until its next call."""

    def evaluate(self, client: int, server_round: int, order: Order, state: State) -> Reply:
        """Test a model on a client's share of the test examples."""


def client_app(node: Node) -> ClientApp:
    """Build the app that runs on every client.

    A client exists only while it is called; what has to last from one call to the next is kept in
    Flower's ``Context``. Asked for it, it says which partition its node holds, and what it keeps.
    """
    app = ClientApp()

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

    return app
