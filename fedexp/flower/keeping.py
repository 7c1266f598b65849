"""What a node of a deployment keeps from call to call, so that no reply that got lost can spoil it.

A reply may come too late, or be refused: then the server goes on as if the client had not been called,
and so must the client. Nobody can call it back over a network. So a node keeps two states, the one before
its last training and the one after it, each under the name of the call that left it; with every call the
server says which of them counts.
"""

from __future__ import annotations

from collections.abc import Mapping

from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp

from fedexp.flower.app import RESTORE
from fedexp.flower.calling import answer
from fedexp.flower.messages import error_reply

CALL = "fedexp: call"
"""The record of a message that is about calls, not about training."""

NAME, SINCE, KEEPS = "name", "since", "keeps"
"""In it: what this call is called; after which call the state counts, empty for none; whether the client
keeps anything after it."""

LOST = "its SuperNode no longer has what the client kept (it was started anew); it begins anew"
"""The reason of a client that was to go on from a state that its node does not have."""

_LEAVES = (MessageType.TRAIN, f"query.{RESTORE}")
"""Kinds of messages that leave a state behind."""


class NodeApp(ClientApp):
    """An app for a node of a deployment: every call has a reply, and the server can do without one.

    Args:
        timeout: Seconds that a call may take; None is for ever.
    """

    def __init__(self, timeout: float | None = None) -> None:
        super().__init__()
        self._timeout = timeout

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer a message, going on from the state that the server names."""
        call = message.content.pop(CALL, ConfigRecord())
        assert isinstance(call, ConfigRecord)
        name, since = str(call.get(NAME, "")), str(call.get(SINCE, ""))
        states = _split(context.state)
        if since and since not in states:
            return error_reply(message, LOST)
        before = states.get(since, RecordDict())
        context.state = RecordDict(dict(before))
        reply = answer(super().__call__, message, context, timeout=self._timeout, in_worker=True)
        after, states = context.state, {since: before} if since else {}
        if not reply.has_error():
            reply.content[CALL] = ConfigRecord({KEEPS: bool(len(after))})
            if message.metadata.message_type in _LEAVES and name:
                states[name] = after
        context.state = _joined(states)
        return reply


def addressed(content: RecordDict, name: str, since: str) -> RecordDict:
    """Return a message's content with what a node has to know of the call; arrays are shared."""
    return RecordDict({**content, CALL: ConfigRecord({NAME: name, SINCE: since})})


def taken_off(content: RecordDict) -> bool:
    """Take what a node says of the call out of its reply; return whether its client keeps anything."""
    call = content.pop(CALL, None)
    return isinstance(call, ConfigRecord) and call.get(KEEPS) is True


_BETWEEN = ": "


def _split(records: RecordDict) -> dict[str, RecordDict]:
    """Return the states that a node keeps: the call that left it -> its records."""
    states: dict[str, RecordDict] = {}
    for key, record in records.items():
        name, _, inner = key.partition(_BETWEEN)
        states.setdefault(name, RecordDict())[inner] = record
    return states


def _joined(states: Mapping[str, RecordDict]) -> RecordDict:
    return RecordDict(
        {
            f"{name}{_BETWEEN}{inner}": record
            for name, state in states.items()
            for inner, record in state.items()
        }
    )
