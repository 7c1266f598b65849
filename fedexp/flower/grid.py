"""A Flower ``Grid`` whose node ids are partition ids."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fedexp.core.roles import State
from fedexp.flower.internals import current_run, empty_run, identify
from fedexp.flower.messages import pack_state, unpack_state

RUN_ID = 1


class CohortGrid(Grid):
    """A grid that shows strategies the current cohort, and calls ``on_reply`` as replies come in.

    ``send_and_receive`` hands replies back in the order of partitions, whatever the order they came in;
    ``replies`` as they come.

    Attributes:
        cohort: Partition ids of the clients that are seen.
        on_reply: Told how many clients have replied.
        states: What clients keep from call to call, where this process is the one to hold it.
        asks_again: Whether clients can be asked a second time, after ``take_back``, and answer the same.
    """

    asks_again = False

    def __init__(self) -> None:
        identify(RUN_ID)
        self.cohort: list[int] = []
        self.on_reply: Callable[[int], None] = lambda num_replies: None
        self.states: dict[int, RecordDict] = {}
        self._before: dict[int, RecordDict] = {}
        self._run = empty_run(RUN_ID)
        self._ids = itertools.count()
        self._replies: dict[str, Message] = {}

    @abstractmethod
    def exchange(self, messages: list[Message]) -> Iterable[Message]:
        """Run the clients that the messages are for; return, or yield, replies in any order."""

    def client_states(self) -> dict[int, State]:
        """Return what clients keep from call to call, by partition id; of those who keep something."""
        kept = {client: unpack_state(records) for client, records in self.states.items()}
        return {client: state for client, state in sorted(kept.items()) if state}

    def keep(self, client: int, state: RecordDict) -> None:
        """Keep what a client keeps; nothing of one that keeps nothing, of which millions may come by."""
        if state:
            self.states[client] = state
        else:
            self.states.pop(client, None)

    def take_back(self, clients: Iterable[int]) -> None:
        """Give clients back what they kept before the last exchange: what they sent was refused."""
        for client in clients:
            if client in self._before:
                self.states[client] = self._before[client]
            else:
                self.states.pop(client, None)

    def restore_states(self, states: Mapping[int, State]) -> None:
        """Give clients back what :meth:`client_states` returned."""
        for client, state in states.items():
            pack_state(state, self.states.setdefault(client, RecordDict()))

    def set_run(self, run: object) -> None:
        """Set the run that messages belong to."""
        self._run = run  # type: ignore[assignment]

    @property
    def run(self) -> object:  # type: ignore[override]
        """The run that messages belong to."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Create a message; Flower itself prefers the constructor of ``Message``."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return the partition ids of the current cohort."""
        return list(self.cohort)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Run the clients now and keep their replies until they are pulled."""
        ids = []
        for reply in self.send_and_receive(messages):
            ids.append(str(next(self._ids)))
            self._replies[ids[-1]] = reply
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return, once, the replies to messages that were pushed."""
        return [self._replies.pop(key) for key in message_ids if key in self._replies]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Run the clients and return one reply each, in the order of partitions.

        A client that raises is answered for by a reply that carries the error. ``timeout`` is not
        needed: a client that ends without a reply ends its task, too.
        """
        return sorted(self.replies(messages), key=lambda reply: reply.metadata.src_node_id)

    def replies(self, messages: Iterable[Message]) -> Iterable[Message]:
        """Run the clients and return one reply each, as they come in.

        A backend may wait with further clients until the replies that there are have been taken.
        """
        ordered = sorted(messages, key=lambda message: message.metadata.dst_node_id)
        clients = [message.metadata.dst_node_id for message in ordered]
        self._before = {client: self.states[client] for client in clients if client in self.states}
        return self.exchange(ordered)


class CohortView(CohortGrid):
    """A grid for looking at only: strategies ask it which nodes there are."""

    def __init__(self, cohort: Iterable[int]) -> None:
        run_id = current_run()
        super().__init__()
        if run_id is not None:
            identify(run_id)  # the grid that messages go through said which run they belong to
        self.cohort = list(cohort)

    def exchange(self, messages: list[Message]) -> Iterable[Message]:
        """Refuse: the round loop exchanges messages, not the strategy."""
        raise RuntimeError("a strategy asks for messages; fedexp's round loop sends them")
