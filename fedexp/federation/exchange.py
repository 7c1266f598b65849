"""From orders to the messages of a round, without what stays with the clients."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from flwr.app import Message, RecordDict

from fedexp.core.roles import Order, Update
from fedexp.core.weights import without
from fedexp.flower.messages import pack_order


def messages_of(
    orders: Mapping[int, Order], server_round: int, kind: str, kept: frozenset[str]
) -> list[Message]:
    """Return a message for every client; those of equal orders share their content.

    Args:
        orders: Partition id -> what the client is sent.
        server_round: The round.
        kind: Flower's word for what is asked.
        kept: The model's entries that are not sent.
    """
    if kept:
        orders = sharing(orders, lambda order: _less(order, kept))
    contents: dict[int, RecordDict] = {}
    for order in orders.values():
        if id(order) not in contents:
            contents[id(order)] = pack_order(order, server_round)
    return [
        Message(contents[id(order)], dst_node_id=client, message_type=kind)
        for client, order in orders.items()
    ]


def sharing(orders: Mapping[int, Order], change: Callable[[Order], Order]) -> dict[int, Order]:
    """Return changed orders; clients that shared one go on sharing."""
    changed: dict[int, Order] = {}
    for order in orders.values():
        if id(order) not in changed:
            changed[id(order)] = change(order)
    return {client: changed[id(order)] for client, order in orders.items()}


def bytes_of(update: Update, kept: frozenset[str]) -> int:
    """Return the bytes of the weights that a client sent."""
    weights = without(update.weights, kept) if kept else update.weights
    sent = [weights, *update.arrays.values()]
    return sum(array.nbytes for arrays in sent for array in arrays.values())


def _less(order: Order, kept: frozenset[str]) -> Order:
    return dataclasses.replace(order, weights=without(order.weights, kept))
