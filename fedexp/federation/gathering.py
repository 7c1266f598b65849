"""How a round's updates are gathered: kept until all are there, or added up as they come.

A weighted mean needs every client's share first, and a share depends on who else replied. A simulation
knows who holds how much, and mostly everybody replies: so the mean of a large cohort is added up as if
all will be well, which spares the memory or the disk that the updates would take. If all is not well, the
sum is of no use, and the clients are asked again, which gives the same replies; from then on updates are
kept.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Protocol

from flwr.app import Message

from fedexp.config.schema import Config
from fedexp.core.roles import Order, Server, Update, Updates
from fedexp.core.shelf import HELD, Shelf
from fedexp.core.updates import Sum, Summed
from fedexp.core.weights import Weights
from fedexp.federation.exchange import bytes_of
from fedexp.federation.guards import Gate, Holdings, UnusableReplyError
from fedexp.flower.grid import CohortGrid


class Way(Protocol):
    """A way of gathering a round's updates.

    Attributes:
        num_bytes: Of the weights that clients sent.
    """

    num_bytes: int

    def read(self, reply: Message) -> Update:
        """Read a reply, and return the update in a form that can be kept.

        Raises:
            UnusableReplyError: If it must not be combined.
        """

    def updates(self, usable: list[Update]) -> Updates:
        """Return the round's updates, for the strategy."""


class Kept:
    """Keeps every update, in memory or in a file.

    Args:
        read: Makes an update of a reply.
        shelf: Where updates are kept.
        unsent: The model's entries that clients do not send.
    """

    def __init__(
        self, read: Callable[[Message], Update], shelf: Shelf, unsent: frozenset[str]
    ) -> None:
        self._read, self._shelf, self._unsent = read, shelf, unsent
        self.num_bytes = 0

    def read(self, reply: Message) -> Update:
        """Read a reply; see :class:`Way`."""
        update = self._read(reply)
        self.num_bytes += bytes_of(update, self._unsent)
        return self._shelf.take(update)

    def updates(self, usable: list[Update]) -> Updates:
        """Return the round's updates, for the strategy."""
        return Updates(usable)


class Added:
    """Adds updates up in the order of clients; one that is early waits for its turn.

    Args:
        read: Makes an update of a reply.
        early: Makes a place where updates wait that are too many to wait in memory.
        unsent: The model's entries that clients do not send.
        counts: Partition id -> examples that the client should have trained on.
    """

    def __init__(
        self,
        read: Callable[[Message], Update],
        early: Callable[[], Shelf],
        unsent: frozenset[str],
        counts: Mapping[int, int],
    ) -> None:
        self._read, self._make_shelf, self._unsent = read, early, unsent
        self._shelf: Shelf | None = None
        self._counts, self._total = counts, sum(counts.values())
        self._next, self._sum = deque(sorted(counts)), Sum()
        self._early: dict[int, Update] = {}
        self._is_as_expected = True
        self.num_bytes = 0

    def read(self, reply: Message) -> Update:
        """Read a reply, and return the update without its arrays; see :class:`Way`."""
        try:
            update = self._read(reply)
        except UnusableReplyError:
            self._give_up()
            raise
        self.num_bytes += bytes_of(update, self._unsent)
        if update.num_examples != self._counts[update.client]:
            self._give_up()
        if self._is_as_expected:
            self._take(update)
        return dataclasses.replace(update, weights={}, arrays={})

    @property
    def is_sound(self) -> bool:
        """Whether every client replied as was expected."""
        return self._is_as_expected and not self._next

    def updates(self, usable: list[Update]) -> Updates:
        """Return the round's updates, which know their mean."""
        return Summed(usable, self._sum.arrays())

    def _take(self, update: Update) -> None:
        size = sum(array.nbytes for array in update.weights.values())
        if update.client != self._next[0] and size * (len(self._early) + 1) > HELD:
            self._shelf = self._shelf or self._make_shelf()
            update = self._shelf.take(update)
        self._early[update.client] = update
        while self._next and self._next[0] in self._early:
            update = self._early.pop(self._next.popleft())
            self._sum.add(update.weights, update.num_examples / self._total)

    def _give_up(self) -> None:
        self._is_as_expected = False
        self._early.clear()


class Gathering:
    """Says how a run's updates are gathered, round by round.

    Args:
        config: The experiment.
        server: The server's side of the strategy.
        gate: Makes updates of replies.
        holdings: How many examples each client holds, where that is known.
        unsent: The model's entries that clients do not send.
    """

    def __init__(
        self,
        config: Config,
        server: Server,
        gate: Gate,
        holdings: Holdings | None,
        unsent: frozenset[str],
    ) -> None:
        kind, clients = type(server), config.clients
        # Only what is known to ask for nothing but the mean is given nothing else.
        is_mean = kind.combine is Server.combine and kind.loss is Server.loss
        certain = not clients.dropout and not clients.byzantine.fraction
        self._holdings = holdings if is_mean and certain else None
        self._gate, self._unsent = gate, unsent

    def ways(
        self, server_round: int, model: Weights, orders: Mapping[int, Order], grid: CohortGrid
    ) -> Iterator[Way]:
        """Yield the ways to be tried for a round, one after another; the last one counts.

        Args:
            server_round: The round.
            model: The global model.
            orders: Partition id -> what the client is sent.
            grid: Reaches the clients; lets them begin anew where a way led nowhere.
        """

        def read(reply: Message) -> Update:
            order = orders[reply.metadata.src_node_id]
            return self._gate.update(reply, server_round, order, model)

        size = len(orders) * sum(array.nbytes for array in model.values())
        if size > HELD and self._holdings is not None and grid.asks_again:
            held = self._holdings.train
            counts = {k: sum(map(held, order.examples_of or (k,))) for k, order in orders.items()}
            if all(counts.values()):  # who has nothing to train on has nothing to send
                added = Added(read, partial(Shelf, model, len(orders)), self._unsent, counts)
                yield added
                if added.is_sound:
                    return
                grid.take_back(orders)
                self._holdings = None  # one accident may be the first of many
        yield Kept(read, Shelf(model, len(orders)), self._unsent)
