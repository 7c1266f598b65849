"""From orders to the messages of a round, without what stays with the clients, and back from replies."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from flwr.app import Message, RecordDict

from fedexp.core.roles import Order, Update
from fedexp.core.weights import without
from fedexp.federation.events import Failure
from fedexp.federation.guards import UnusableReplyError
from fedexp.flower.messages import pack_order

Read = TypeVar("Read")


@dataclass
class Found(Generic[Read]):
    """What became of a round's replies.

    Attributes:
        phase: For what clients were asked.
        usable: What was read, in the order of clients.
        failures: Clients whose replies cannot be used, in order.
        seconds: Time that reading took.
    """

    phase: str
    usable: list[Read] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    seconds: float = 0.0


def read_each(
    replies: Iterable[Message], read: Callable[[Message], Read], server_round: int, phase: str
) -> Found[Read]:
    """Read replies as they come in, whatever their order, and let go of each before the next.

    Args:
        replies: One per client.
        read: Makes something of a reply, which must not keep it alive where memory counts.
        server_round: The round.
        phase: For what clients were asked.
    """
    found, usable, refused = Found[Read](phase), dict[int, Read](), dict[int, str]()
    for reply in replies:
        start, client = time.perf_counter(), reply.metadata.src_node_id
        try:
            usable[client] = read(reply)
        except UnusableReplyError as error:
            refused[client] = str(error)
        del reply
        found.seconds += time.perf_counter() - start
    found.usable = [usable[client] for client in sorted(usable)]
    found.failures = [Failure(server_round, phase, k, refused[k]) for k in sorted(refused)]
    return found


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
