"""Messages to SuperNodes, each answered, late, or never: what Flower's grid does, for so many seconds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

from flwr.app import Error, Message, RecordDict
from flwr.serverapp import Grid

from fedexp.core.replies import one_line
from fedexp.flower.internals import OURS

PULL_INTERVAL = 0.1
"""Seconds between two looks for replies."""

ABSENT = "no SuperNode holds this partition now"
"""The reason of a client whose node is gone."""


def send(
    inner: Grid,
    asked: Mapping[int, tuple[RecordDict, str]],
    patience: float,
    late: str,
    on_reply: Callable[[int], None] | None = None,
) -> dict[int, Message]:
    """Send one message to each of some nodes, and wait for replies.

    Args:
        inner: Flower's grid.
        asked: Node -> content and kind of its message.
        patience: Seconds to wait at most; may be infinite.
        late: The reason of a node that has not answered by then.
        on_reply: Is told how many have answered.

    Returns:
        A reply for every node; one that says what was wrong where there is none.
    """
    # A node that returns must not find old messages.
    ttl = None if math.isinf(patience) else patience
    messages = [Message(content, node, kind, ttl=ttl) for node, (content, kind) in asked.items()]
    if not messages:
        return {}
    pushed = zip(inner.push_messages(messages), asked, strict=True)
    node_of = {key: node for key, node in pushed if key}  # one that has just left gets none
    until, found = time.monotonic() + patience, dict[int, Message]()
    while len(found) < len(node_of) and time.monotonic() < until:
        pending = [key for key, node in node_of.items() if node not in found]
        for reply in inner.pull_messages(pending):
            node = node_of.get(reply.metadata.reply_to_message_id)
            if node is not None:
                found.setdefault(node, reply)
                if on_reply is not None:
                    on_reply(len(found))
        if len(found) < len(node_of):
            time.sleep(PULL_INTERVAL)
    sent = set(node_of.values())
    return {
        node: found.get(node) or _silence(message, late if node in sent else ABSENT)
        for node, message in zip(asked, messages, strict=True)
    }


def reason(reply: Message) -> str:
    """Return why there is no reply, in one line."""
    return one_line(reply.error.reason or "no reason given")


def _silence(message: Message, why: str) -> Message:
    """Return the reply of a node that has none."""
    return Message(Error(OURS, why), reply_to=message)
