"""Flower ``Grid``s that run clients: in this process, or on Ray tasks.

Node ids are partition ids. A grid shows a strategy only the round's cohort, which the round loop has
drawn, and hands replies back in the order of partitions, whatever the order they came in.
"""

from __future__ import annotations

import copy
import gc
import itertools
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import ray
from flwr.app import ArrayRecord, Context, Error, Message, Metadata, RecordDict
from flwr.app.message import make_message
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fedexp.config.schema import Config, RayBackend
from fedexp.data.federated import FederatedData
from fedexp.flower.arrays import own

LONG_ROUND = 0.5
"""Seconds from which on a worker gets two tasks a round. Clients are dealt by size, and the second task
evens out the rest; it costs 5 ms, which short rounds would feel."""

RUN_ID = 1


class CohortGrid(Grid):
    """A grid that shows strategies the current cohort, and calls ``on_reply`` as replies come in."""

    def __init__(self) -> None:
        # Flower's Message takes its sender from here; only Flower's own runtime would set it.
        TaskIdentity.task_id, TaskIdentity.run_id = 1, RUN_ID
        TaskIdentity.node_id = SUPERLINK_NODE_ID
        self.cohort: list[int] = []
        self.on_reply: Callable[[int], None] = lambda num_replies: None
        self._run = Run.create_empty(run_id=RUN_ID)
        self._ids = itertools.count()
        self._replies: dict[str, Message] = {}

    @abstractmethod
    def exchange(self, messages: list[Message]) -> list[Message]:
        """Run the clients that the messages are for; return replies in any order."""

    def set_run(self, run: Run) -> None:
        """Set the run that messages belong to."""
        self._run = run

    @property
    def run(self) -> Run:
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
        ordered = sorted(messages, key=lambda message: message.metadata.dst_node_id)
        replies = self.exchange(ordered)
        return sorted(replies, key=lambda reply: reply.metadata.src_node_id)


def call_client(
    app: ClientApp, message: Message, num_partitions: int, state: RecordDict
) -> tuple[Message, RecordDict]:
    """Run one client on one message.

    Args:
        app: The client app.
        message: Its ``dst_node_id`` is the partition id.
        num_partitions: Number of clients in all.
        state: What the client put into its ``Context`` last time.

    Returns:
        The reply, which carries an error if the client raised one, and the client's state after it.
    """
    client = message.metadata.dst_node_id
    context = Context(
        run_id=message.metadata.run_id,
        node_id=client,
        node_config={"partition-id": client, "num-partitions": num_partitions},
        state=copy.deepcopy(state),  # a client that fails must leave its state as it was
        run_config={},
    )
    try:
        return app(message, context), context.state
    except Exception as error:
        return _error_reply(message, error), state


def _error_reply(message: Message, error: BaseException) -> Message:
    reason = f"{type(error).__name__}: {error}"
    return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=message)


class InlineGrid(CohortGrid):
    """Run clients in this process, one after another."""

    def __init__(self, app: ClientApp, num_partitions: int) -> None:
        super().__init__()
        self._app, self._num_partitions = app, num_partitions
        self._states: dict[int, RecordDict] = {}

    def exchange(self, messages: list[Message]) -> list[Message]:
        """Run the clients in order."""
        replies = []
        for message in messages:
            client = message.metadata.dst_node_id
            state = self._states.get(client, RecordDict())
            reply, self._states[client] = call_client(
                self._app, message, self._num_partitions, state
            )
            replies.append(reply)
            self.on_reply(len(replies))
        return replies


Work = tuple[Metadata, int, RecordDict]
"""A message's metadata, the position of its content among the contents sent along, client state."""


class RayGrid(CohortGrid):
    """Run clients on Ray tasks, several clients a task.

    Data and configuration are stored once per run, every distinct message content once per round, so
    that a round's cost follows the cohort and not the number of clients.
    """

    def __init__(self, config: Config, data: FederatedData) -> None:
        super().__init__()
        assert isinstance(config.backend, RayBackend)
        self._setup = ray.put((config, data))
        self._sizes = data.partition.sizes
        self._states: dict[int, RecordDict] = {}
        self._workers = int(ray.cluster_resources()["CPU"] / config.backend.num_cpus_per_worker)
        self._seconds = LONG_ROUND
        # Ray would end a worker after each GPU task; max_calls=0 keeps it for the next round.
        self._task = ray.remote(
            num_cpus=config.backend.num_cpus_per_worker,
            num_gpus=config.backend.num_gpus_per_worker,
            max_calls=0,
            max_retries=3,
        )(_run_clients)

    def exchange(self, messages: list[Message]) -> list[Message]:
        """Spread the clients over tasks of about equal work and collect replies as they come."""
        start = time.perf_counter()
        contents = {id(message.content): message.content for message in messages}
        refs = {key: ray.put(content) for key, content in contents.items()}
        pending: dict[Any, list[Message]] = {}
        for chunk in self._chunks(messages):
            keys = list(dict.fromkeys(id(message.content) for message in chunk))
            work = [self._work(message, keys) for message in chunk]
            pending[self._task.remote([self._setup], [refs[key] for key in keys], work)] = chunk
        replies: list[Message] = []
        while pending:
            (ready,), _ = ray.wait(list(pending), num_returns=1, fetch_local=True)
            replies += self._collect(ready, pending.pop(ready))
            self.on_reply(len(replies))
        self._seconds = time.perf_counter() - start
        return replies

    def _chunks(self, messages: list[Message]) -> list[list[Message]]:
        """Deal clients to tasks, largest first, each to the task that has the least to do so far."""
        per_worker = 1 if self._seconds < LONG_ROUND else 2
        num_tasks = min(len(messages), per_worker * max(1, self._workers))
        chunks: list[list[Message]] = [[] for _ in range(num_tasks)]
        loads = [0] * num_tasks
        size = {m.metadata.dst_node_id: int(self._sizes[m.metadata.dst_node_id]) for m in messages}
        for message in sorted(messages, key=lambda m: -size[m.metadata.dst_node_id]):
            lightest = loads.index(min(loads))
            chunks[lightest].append(message)
            loads[lightest] += size[message.metadata.dst_node_id]
        order = sorted(range(num_tasks), key=lambda task: -loads[task])
        return [chunks[task] for task in order]

    def _work(self, message: Message, keys: list[int]) -> Work:
        state = self._states.get(message.metadata.dst_node_id, RecordDict())
        return message.metadata, keys.index(id(message.content)), state

    def _collect(self, ready: Any, chunk: list[Message]) -> list[Message]:
        try:
            results = ray.get(ready)
        except ray.exceptions.RayError as error:
            return [_error_reply(message, error) for message in chunk]
        for reply, state in results:
            for name, record in list(state.items()):
                if isinstance(record, ArrayRecord):
                    state[name] = own(record)
            self._states[reply.metadata.src_node_id] = state
        return [reply for reply, _ in results]


_apps: dict[str, tuple[ClientApp, int]] = {}
"""In a worker: the run it works for. One entry, because the data of a run may be large."""


def _run_clients(
    setup: Sequence[Any], contents: Sequence[Any], work: list[Work]
) -> list[tuple[Message, RecordDict]]:
    """Run some clients in a Ray worker. References come inside lists, so that Ray keeps them as such."""
    key = setup[0].hex()
    if key not in _apps:
        from fedexp.federation.client import build_client_app

        config, data = ray.get(setup[0])
        _apps.clear()
        _apps[key] = build_client_app(config, lambda: data), data.partition.num_clients
        gc.freeze()  # what torch's import left is never garbage; scanning it costs a fifth of a second
    app, num_partitions = _apps[key]
    records = ray.get(list(contents))
    results = []
    for metadata, position, state in work:
        message = make_message(metadata, records[position])
        reply, state = call_client(app, message, num_partitions, state)
        results.append((reply, state))
    return results
