"""``backend=ray``: clients on Ray tasks, several clients a task."""

from __future__ import annotations

import gc
import logging
import math
import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import ray
from flwr.app import Message, MessageType, RecordDict
from flwr.clientapp import ClientApp

from fedexp.backends.base import (
    GRACE,
    TRIES,
    Body,
    Work,
    call_client,
    kept,
    run_server,
    worker_died,
)
from fedexp.backends.machines import PATIENCE, ensure_same, workers_on
from fedexp.backends.ray_session import crew_of, start_ray
from fedexp.backends.stacks import stacks, train_ahead
from fedexp.config.backend import RayBackend
from fedexp.config.schema import Config
from fedexp.core.replies import told
from fedexp.data.federated import FederatedData
from fedexp.federation.client import ClientNode
from fedexp.federation.together import Together
from fedexp.flower.app import client_app
from fedexp.flower.calling import out_of_time
from fedexp.flower.grid import CohortGrid
from fedexp.flower.internals import message_from
from fedexp.flower.messages import error_reply, num_bytes

log = logging.getLogger("fedexp")

LONG_ROUND = 0.5
"""Seconds from which on a worker gets two tasks a round. Clients are dealt by size, and the second task
evens out the rest; it costs 5 ms, which short rounds would feel."""


def run(config: Config, data: FederatedData, server: Body, *, verbose: bool = False) -> None:
    """Run a server function against the clients of an experiment, on Ray.

    Args:
        config: The experiment.
        data: What server and clients hold.
        server: The body of the ServerApp.
        verbose: Let Flower speak.
    """
    start_ray(config)
    run_server(RayGrid(config, data), server)


IN_FLIGHT = 128 * 2**20
"""Bytes of replies that are on their way at a time: a cohort whose replies have more is taken in bit by
bit. They lie in workers, or in Ray's object store, where nobody has read them yet."""


LOOK = 1.0
"""Seconds from one look which machines there are to the next: a look takes half a millisecond."""


class Reason(NamedTuple):
    """Why a task's clients have no reply.

    Attributes:
        text: One line.
        is_final: Whether a client that was alone in the task need not be asked again.
    """

    text: str
    is_final: bool = False


class RayGrid(CohortGrid):
    """Run clients on Ray tasks, several clients a task.

    Data and configuration are stored once per run, every distinct message content once per round, so
    that a round's cost follows the cohort and not the number of clients.
    """

    asks_again = True

    def __init__(self, config: Config, data: FederatedData) -> None:
        super().__init__()
        assert isinstance(config.backend, RayBackend)
        self._backend, self._crew = config.backend, crew_of(config)
        # The node was made here: workers need not know code from outside by name.
        own = None if self._crew is None else self._crew.own
        self._setup = ray.put((ClientNode(config, _not_here), data, own))
        # Workers train together whom they are given; who goes to whom depends on what was asked for.
        here = ClientNode(config, lambda: data)
        self._together = Together(here) if config.backend.stacked is not None else None
        self._size = data.partition.size
        self._workers = _at_once(ray.cluster_resources(), config.backend)
        self._look()
        if self._crew is not None:
            log.info("on a cluster of Ray: %s", self._crew.summary())
        self._timeout = config.backend.timeout
        self._seconds = LONG_ROUND
        self._contents: dict[int, Any] = {}
        self._num_answers = 0
        # Ray would end a worker after each GPU task; max_calls=0 keeps it for the next round. It would
        # retry a task as a whole, too, with the client in it that kills its worker.
        self._task = ray.remote(
            num_cpus=config.backend.num_cpus_per_worker,
            num_gpus=config.backend.num_gpus_per_worker,
            max_calls=0,
            max_retries=0,
        )(_run_clients)

    def exchange(self, messages: list[Message]) -> Iterator[Message]:
        """Spread the clients over tasks of about equal work and hand over replies as they come.

        A task whose worker died, or whose time is up, takes all its clients' replies with it. Its clients
        are asked once more, each in a task of its own, so that only the one to blame fails. Of a cohort
        with large replies, further tasks start when those of others were taken.
        """
        start = time.perf_counter()
        self._look(every=LOOK)
        contents = {id(message.content): message.content for message in messages}
        self._contents = {key: ray.put(content) for key, content in contents.items()}
        self._num_answers = 0
        most, at_once = self._bounds(messages)
        left = yield from self._work_off(self._chunks(messages, most), at_once)
        tries = dict.fromkeys((message.metadata.dst_node_id for message, _ in left), 0)
        while left:
            again = []
            for message, reason in left:
                client = message.metadata.dst_node_id
                if tries[client] == TRIES or (tries[client] and reason.is_final):
                    self._tell(1)
                    yield error_reply(message, reason.text)
                else:
                    tries[client] += 1
                    again.append([message])
            self._look(patience=PATIENCE)  # who has joined says what it has before it is asked
            left = yield from self._work_off(again, at_once=self._workers)
        self._contents = {}
        self._seconds = time.perf_counter() - start

    def _look(self, every: float = 0.0, patience: float = 0.0) -> None:
        """Follow the machines of a cluster as they come and go."""
        if self._crew is not None:
            self._crew.look(every=every, patience=patience)
            while self._crew.news:
                log.warning("%s", self._crew.news.pop(0))
            limit = self._backend.workers or self._crew.workers
            self._workers = max(1, min(self._crew.workers, limit))

    def _bounds(self, messages: list[Message]) -> tuple[float, int]:
        """Return how many clients a task may have, and how many tasks may be on their way at a time.

        A client sends about as much as it is sent; but numbers alone where it is tested.
        """
        tasks, total = 2 * self._workers, 0
        if messages and messages[0].metadata.message_type != MessageType.EVALUATE:
            total = num_bytes(messages)
        if total <= IN_FLIGHT:
            # Of a cluster, others may have a part.
            shared = self._crew is not None and self._backend.workers is not None
            return math.inf, self._workers if shared else len(messages)
        return max(1, IN_FLIGHT // tasks * len(messages) // total), tasks

    def _work_off(
        self, chunks: list[list[Message]], at_once: int
    ) -> Generator[Message, None, list[tuple[Message, Reason]]]:
        """Run a task for every chunk, so many at a time; return the messages that nobody answered."""
        waiting, pending = deque(chunks), dict[Any, tuple[list[Message], float]]()
        left: list[tuple[Message, Reason]] = []
        while waiting or pending:
            while waiting and len(pending) < at_once:
                self._look(every=LOOK)
                chunk = waiting.popleft()
                ahead = [len(other) for other, _ in pending.values()]
                pending[self._submit(chunk)] = chunk, self._deadline(chunk, ahead)
            until = min(deadline for _, deadline in pending.values())
            patience = None if until == math.inf else max(0.0, until - time.monotonic())
            ready, _ = ray.wait(list(pending), num_returns=1, timeout=patience, fetch_local=True)
            now = time.monotonic()
            late = [] if ready else [task for task, (_, at) in pending.items() if at <= now]
            for task in late:
                chunk, _ = pending.pop(task)
                reason = self._give_up(task)
                left += [(message, reason) for message in chunk]
            while ready:  # no name keeps what was taken
                chunk, _ = pending.pop(ready[0])
                found = self._collect(ready.pop())
                if isinstance(found, Reason):
                    left += [(message, found) for message in chunk]
                else:
                    yield from found
        return left

    def _submit(self, chunk: list[Message]) -> Any:
        keys = list(dict.fromkeys(id(message.content) for message in chunk))
        work = [self._work(message, keys) for message in chunk]
        contents = [self._contents[key] for key in keys]
        placed = self._crew.placement() if self._crew is not None else {}
        task = self._task.options(**placed) if placed else self._task
        return task.remote([self._setup], contents, work, self._timeout)

    def _deadline(self, chunk: list[Message], ahead: list[int]) -> float:
        """Return until when a task must be done: its clients are stopped one by one before that.

        A task waits for a worker while others are at work; that is no fault of its clients.

        Args:
            chunk: The task's.
            ahead: The clients of every task that is not done and was there before.
        """
        if self._timeout is None:
            return math.inf
        before = 0 if len(ahead) < self._workers else math.ceil(sum(ahead) / self._workers)
        return time.monotonic() + GRACE + self._timeout * (before + len(chunk))

    def _give_up(self, task: Any) -> Reason:
        ray.cancel(task, force=True)
        return Reason(out_of_time(self._timeout or 0.0), is_final=True)

    def _chunks(self, messages: list[Message], most: float = math.inf) -> list[list[Message]]:
        """Deal clients to tasks, largest first, each to the task that has the least to do so far.

        Where a task may have few clients, it gets consecutive ones: replies that come in order can be
        added up at once, and so many tasks even out by themselves. Who is trained together stays so.

        Args:
            messages: To the clients, in order.
            most: Clients that a task may have.
        """
        units = list(stacks(messages, self._together))
        if most < len(messages):
            return _consecutive(units, most)
        per_worker = 1 if self._seconds < LONG_ROUND else 2
        num_tasks = min(len(units), per_worker * self._workers)
        chunks: list[list[Message]] = [[] for _ in range(num_tasks)]
        loads = [0] * num_tasks
        sizes = [sum(self._size(m.metadata.dst_node_id) for m in unit) for unit in units]
        for size, unit in sorted(zip(sizes, units, strict=True), key=lambda pair: -pair[0]):
            lightest = loads.index(min(loads))
            chunks[lightest] += unit
            loads[lightest] += size
        order = sorted(range(num_tasks), key=lambda task: -loads[task])
        return [chunks[task] for task in order]

    def _work(self, message: Message, keys: list[int]) -> Work:
        state = self.states.get(message.metadata.dst_node_id, RecordDict())
        return message.metadata, keys.index(id(message.content)), state

    def _collect(self, task: Any) -> Iterator[Message] | Reason:
        """Return the replies of a task, or why there is none."""
        try:
            results = ray.get(task)
        except ray.exceptions.RayTaskError as error:
            return Reason(told(error.cause if error.cause is not None else error), is_final=True)
        except ray.exceptions.RayError as error:
            return Reason(worker_died(type(error).__name__))
        except Exception as error:  # what a client sent cannot even be unpacked
            return Reason(told(error), is_final=True)
        return self._take_in(results)

    def _take_in(self, results: list[tuple[Message, RecordDict]]) -> Iterator[Message]:
        for reply, state in results:
            if not reply.has_error():
                self.keep(reply.metadata.src_node_id, kept(state))
        self._tell(len(results))
        results.reverse()
        while results:  # no name keeps what was taken
            yield results.pop()[0]

    def _tell(self, num_more: int) -> None:
        self._num_answers += num_more
        self.on_reply(self._num_answers)


def _consecutive(units: list[list[Message]], most: float) -> list[list[Message]]:
    """Put units together in order, up to so many messages; a unit that has more stays whole."""
    chunks: list[list[Message]] = [[]]
    for unit in units:
        if chunks[-1] and len(chunks[-1]) + len(unit) > most:
            chunks.append([])
        chunks[-1] += unit
    return chunks


def _at_once(have: Mapping[str, float], backend: RayBackend) -> int:
    """Return how many tasks can run at the same time on this machine."""
    return max(1, workers_on(have, backend))


_apps: dict[str, tuple[ClientApp, int, Together]] = {}
"""In a worker: the run it works for. One entry, because the data of a run may be large."""


def _not_here() -> FederatedData:
    raise RuntimeError("a worker sets where its data come from")


def _run_clients(
    setup: Sequence[Any], contents: Sequence[Any], work: list[Work], timeout: float | None = None
) -> list[tuple[Message, RecordDict]]:
    """Run some clients in a Ray worker. References come inside lists, so that Ray keeps them as such."""
    key = setup[0].hex()
    if key not in _apps:
        node, data, own = ray.get(setup[0])
        ensure_same(own)
        node.source = lambda: data
        _apps.clear()
        _apps[key] = client_app(node), data.partition.num_clients, Together(node)
        gc.freeze()  # what torch's import left is never garbage; scanning it costs a fifth of a second
    app, num_partitions, together = _apps[key]
    records = ray.get(list(contents))
    states = {metadata.dst_node_id: state for metadata, _, state in work}
    messages = [message_from(metadata, records[position]) for metadata, position, _ in work]
    results = []
    for stack in stacks(messages, together):
        train_ahead(together, stack, states)
        results += [
            call_client(
                app,
                message,
                num_partitions,
                states[message.metadata.dst_node_id],
                timeout=timeout,
                in_worker=True,
            )
            for message in stack
        ]
    return results
