"""Which messages of a round are for clients that are trained together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from flwr.app import Message, MessageType, RecordDict

from fedexp.federation.together import Ask, Together
from fedexp.flower.messages import CONFIG, EXAMPLES_OF, SERVER_ROUND, unpack_order, unpack_state


def stacks(messages: Sequence[Message], together: Together | None) -> Iterable[list[Message]]:
    """Return messages in lists: of clients of equal work, or one by one.

    Args:
        messages: To clients, all of one kind.
        together: Trains clients together; None where nobody does.
    """
    trains = bool(messages) and messages[0].metadata.message_type == MessageType.TRAIN
    if together is None or not trains:
        return ([message] for message in messages)
    return together.stacks(messages, _asked)


def train_ahead(
    together: Together, stack: Sequence[Message], states: Mapping[int, RecordDict]
) -> None:
    """Train the clients of a list together, if there are several.

    Args:
        together: Trains them.
        stack: Their messages.
        states: What they keep.
    """
    if len(stack) == 1:
        return
    asks = []
    for message in stack:
        client = message.metadata.dst_node_id
        order, server_round = unpack_order(message.content)
        state = unpack_state(states.get(client, RecordDict()))
        asks.append(Ask(client, server_round, order, state))
    together.prepare(asks)


def _asked(message: Message) -> tuple[int, int] | None:
    told = message.content.config_records[CONFIG]
    if EXAMPLES_OF in told:
        return None
    return message.metadata.dst_node_id, int(str(told[SERVER_ROUND]))
