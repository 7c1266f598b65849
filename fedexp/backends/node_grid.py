"""A grid over SuperNodes, which come and go; their ids are random, so each is asked what it holds."""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Iterable, Mapping, Sequence

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from fedexp.backends.sending import ABSENT, reason, send
from fedexp.core.options import FedexpError
from fedexp.core.roles import State
from fedexp.flower.app import RESTORE, STATE
from fedexp.flower.calling import out_of_time
from fedexp.flower.grid import CohortGrid
from fedexp.flower.internals import (
    CLIENT_RAISED,
    GONE,
    UNHEARD,
    current_run,
    identify,
    set_sender,
)
from fedexp.flower.keeping import LOST, addressed, taken_off
from fedexp.flower.messages import CONFIG, PARTITION_ID, error_reply

log = logging.getLogger("fedexp")

JOIN = 300.0
"""Seconds that the first round waits for a SuperNode for every client."""

ASK = 120.0
"""Seconds that a SuperNode may take to say what it holds."""


class NodeGrid(CohortGrid):
    """Flower's grid, with partition ids in place of node ids.

    Nobody can take a call over a network back. So every call that may change what a client keeps has a
    name, and with every call goes the name of the last one that counts (``fedexp.flower.keeping``).

    Args:
        inner: Flower's.
        num_clients: Clients in all.
        timeout: Seconds that a node may take to answer; None waits until the SuperLink has missed it.
        owners: What clients are called whose nodes have files of their own; none where they have shares.
    """

    def __init__(
        self,
        inner: Grid,
        num_clients: int,
        timeout: float | None = None,
        owners: Sequence[str] = (),
    ) -> None:
        run_id = current_run()
        super().__init__()
        identify(run_id)  # messages must keep the run that the SuperLink knows
        self._inner, self._num, self._timeout = inner, num_clients, timeout
        self._owners = owners
        self._node_of: dict[int, int] = {}
        self._mute: dict[int, str] = {}
        self._replaced: set[int] = set()
        self._since: dict[int, str] = {}
        self._earlier: dict[int, str] = {}
        self._changed: set[int] = set()
        self._names = map(str, itertools.count(1))

    def discover(self) -> None:
        """Wait until there is a node for every client.

        Raises:
            FedexpError: If there is none for some.
        """
        until = time.monotonic() + JOIN
        while len(self._node_of) < self._num:
            self._look()
            missing = sorted(set(range(self._num)) - set(self._node_of))
            if missing and time.monotonic() > until:
                raise FedexpError(
                    f"backend=deployment: after {JOIN:g} s no SuperNode holds {self._lacking(missing)}"
                    f"{self._complaints()}"
                )
            if missing:
                time.sleep(0.3)

    def exchange(self, messages: list[Message]) -> list[Message]:
        """Send to the nodes that are there; a client that has none, or whose node is late, fails."""
        self._look()
        trains = bool(messages) and messages[0].metadata.message_type == MessageType.TRAIN
        name = next(self._names)
        replies = self._call(messages, name)
        lost = [k for k, reply in replies.items() if reply.has_error() and _is_lost(reply)]
        if lost:  # a node hands in what its client keeps a moment after the reply
            again = [message for message in messages if message.metadata.dst_node_id in lost]
            replies |= self._call(again, name)
        if trains:
            self._earlier = {client: self._since.get(client, "") for client in replies}
        for client, reply in replies.items():
            if not reply.has_error():
                keeps = taken_off(reply.content)
                if trains:
                    self._since[client] = name if keeps else ""
                    self._changed.add(client)
            elif _is_lost(reply):
                self._since[client] = self._earlier[client] = ""
                self.states.pop(client, None)
        return list(replies.values())

    def take_back(self, clients: Iterable[int]) -> None:
        """Go on from what clients kept before the last exchange: what they sent was refused."""
        for client in clients:
            self._since[client] = self._earlier.get(client, "")

    def client_states(self) -> dict[int, State]:
        """Ask the nodes whose clients were at work since the last time and keep something."""
        self._look()
        asked = [k for k in sorted(self._changed) if self._since.get(k) and k in self._node_of]
        for client in self._changed:
            if not self._since.get(client):
                self.states.pop(client, None)
        questions = [Message(RecordDict(), client, f"query.{STATE}") for client in asked]
        for client, reply in self._call(questions, "").items():
            if reply.has_error():  # what is known of it is from before
                log.warning("client %d does not say what it keeps: %s", client, reply.error.reason)
            else:
                taken_off(reply.content)
                self.states[client] = reply.content
                self._changed.discard(client)
        return super().client_states()

    def restore_states(self, states: Mapping[int, State]) -> None:
        """Send every node what it is to keep.

        Raises:
            FedexpError: If one does not answer: it would go on with another state than is thought.
        """
        super().restore_states(states)
        name = next(self._names)
        orders = [Message(self.states[k], k, f"query.{RESTORE}") for k in sorted(states)]
        for client, reply in self._call(orders, name).items():
            if reply.has_error():
                raise FedexpError(
                    f"backend=deployment: client {client} cannot go on from what it kept: "
                    f"{reply.error.reason}"
                )
            self._since[client] = name

    def _look(self) -> None:
        """Learn which nodes are there, and what new ones hold."""
        there = set(self._inner.get_node_ids())
        self._node_of = {k: node for k, node in self._node_of.items() if node in there}
        self._mute = {node: why for node, why in self._mute.items() if node in there}
        new = sorted(there - set(self._node_of.values()) - set(self._mute) - self._replaced)
        question = RecordDict({CONFIG: ConfigRecord()})
        patience = min(ASK, self._timeout or ASK)
        for node, reply in self._send(dict.fromkeys(new, (question, "query")), patience).items():
            client = _partition_in(reply, self._num)
            if isinstance(client, int):
                other = self._node_of.get(
                    client
                )  # if it was killed, the SuperLink does not know yet
                if other is not None:
                    self._replaced.add(other)
                    log.warning(
                        "SuperNode %d says that it holds partition %d, as %d does: it is asked from "
                        "now on",
                        node,
                        client,
                        other,
                    )
                self._node_of[client] = node
            elif not reply.has_error() or reply.error.code == CLIENT_RAISED:
                log.warning("SuperNode %d takes no part: %s", node, client)
                self._mute[node] = client

    def _reason(self, reply: Message) -> str:
        """Return why there is no reply, in our words."""
        if reply.error.code in UNHEARD and self._timeout is not None:
            return out_of_time(self._timeout)
        return SILENT if reply.error.code == GONE else reason(reply)

    def _lacking(self, missing: Sequence[int]) -> str:
        """Say what no node holds, and how one is started that does."""
        if self._owners:
            names = [self._owners[client] for client in missing]
            held = f'\'data="PATH" client="{names[0]}"\''
            return f"the files of {', '.join(names)}: start one with --node-config {held}"
        held = f"'partition-id={missing[0]} num-partitions={self._num}'"
        partitions = ", ".join(f"partition {k}" for k in missing)
        return f"{partitions}: start one with --node-config {held}"

    def _complaints(self) -> str:
        return "".join(f"; SuperNode {node}: {why}" for node, why in self._mute.items())

    def _call(self, messages: list[Message], name: str) -> dict[int, Message]:
        """Send messages to clients; return one reply each, in their order, under their partition."""
        asked: dict[int, tuple[RecordDict, str]] = {}
        nodes = {}
        for message in messages:
            client = message.metadata.dst_node_id
            node = self._node_of.get(client)
            if node is not None:
                content = addressed(message.content, name, self._since.get(client, ""))
                asked[node] = content, message.metadata.message_type
                nodes[client] = node
        found = self._send(asked, math.inf if self._timeout is None else self._timeout, tell=True)
        replies = {}
        for message in messages:
            client = message.metadata.dst_node_id
            reply = found[nodes[client]] if client in nodes else error_reply(message, ABSENT)
            if reply.has_error():
                reply = error_reply(message, self._reason(reply))
            set_sender(reply, client)
            replies[client] = reply
        return replies

    def _send(
        self, asked: Mapping[int, tuple[RecordDict, str]], patience: float, *, tell: bool = False
    ) -> dict[int, Message]:
        """Send one message to each of some nodes, and wait for replies for so many seconds."""
        late = out_of_time(self._timeout or patience)
        return send(self._inner, asked, patience, late, self.on_reply if tell else None)


SILENT = "its SuperNode gives no sign of life any more"
"""The reason of a client whose node the SuperLink has missed before the time was up."""


def _is_lost(reply: Message) -> bool:
    return reply.error.reason == LOST


def _partition_in(reply: Message, num_clients: int) -> int | str:
    """Return which partition a node says that it holds, or what is wrong with its answer."""
    if reply.has_error():
        return reason(reply)
    record = reply.content.get(CONFIG)
    client = record.get(PARTITION_ID) if isinstance(record, ConfigRecord) else None
    if not isinstance(client, int) or not 0 <= client < num_clients:
        return f"it says that it holds partition {client!r}, of clients.num={num_clients}"
    return client
