"""``backend=ray``: clients on Ray tasks, several clients a task."""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from typing import Any

import ray
from flwr.app import Message, Metadata, RecordDict
from flwr.clientapp import ClientApp

from fedexp.backends.base import Body, call_client, error_reply, kept, run_server
from fedexp.backends.ray_session import start_ray
from fedexp.config.backend import RayBackend
from fedexp.config.schema import Config
from fedexp.data.federated import FederatedData
from fedexp.federation.client import ClientNode
from fedexp.flower.app import client_app
from fedexp.flower.grid import CohortGrid
from fedexp.flower.internals import message_from

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
        # The node was made here: workers need not know code from outside by name.
        self._setup = ray.put((ClientNode(config, _not_here), data))
        self._sizes = data.partition.sizes
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
        state = self.states.get(message.metadata.dst_node_id, RecordDict())
        return message.metadata, keys.index(id(message.content)), state

    def _collect(self, ready: Any, chunk: list[Message]) -> list[Message]:
        try:
            results = ray.get(ready)
        except ray.exceptions.RayError as error:
            return [error_reply(message, error) for message in chunk]
        for reply, state in results:
            self.states[reply.metadata.src_node_id] = kept(state)
        return [reply for reply, _ in results]


_apps: dict[str, tuple[ClientApp, int]] = {}
"""In a worker: the run it works for. One entry, because the data of a run may be large."""


def _not_here() -> FederatedData:
    raise RuntimeError("a worker sets where its data come from")


def _run_clients(
    setup: Sequence[Any], contents: Sequence[Any], work: list[Work]
) -> list[tuple[Message, RecordDict]]:
    """Run some clients in a Ray worker. References come inside lists, so that Ray keeps them as such."""
    key = setup[0].hex()
    if key not in _apps:
        node, data = ray.get(setup[0])
        node.source = lambda: data
        _apps.clear()
        _apps[key] = client_app(node), data.partition.num_clients
        gc.freeze()  # what torch's import left is never garbage; scanning it costs a fifth of a second
    app, num_partitions = _apps[key]
    records = ray.get(list(contents))
    results = []
    for metadata, position, state in work:
        message = message_from(metadata, records[position])
        reply, state = call_client(app, message, num_partitions, state)
        results.append((reply, state))
    return results
