"""``backend=ray`` where nobody said how many workers: clients in this process until Ray pays.

Where a client runs changes no bit. So a short run is over before Ray's workers would have imported torch,
and a long one goes on in this process until they have.
"""

from __future__ import annotations

import logging
import math
import sys
import threading
import time
from collections.abc import Iterator

from flwr.app import Message, MessageType, RecordDict

from fedexp.backends.base import Body, call_client, kept, run_server
from fedexp.config.backend import RayBackend
from fedexp.config.schema import Config
from fedexp.core.files import reason
from fedexp.data.federated import FederatedData
from fedexp.federation.client import ClientNode
from fedexp.flower.app import client_app
from fedexp.flower.grid import CohortGrid
from fedexp.flower.messages import CONFIG, SERVER_ROUND

log = logging.getLogger("fedexp")

START = 5.0
"""Seconds that Ray's start takes, until its workers have imported torch (docs/speed.md)."""


def run(config: Config, data: FederatedData, server: Body, *, verbose: bool = False) -> None:
    """Run a server function against the clients of an experiment.

    Args:
        config: The experiment.
        data: What server and clients hold.
        server: The body of the ServerApp.
        verbose: Let Flower speak.
    """
    run_server(LaterGrid(config, data), server)


class Later:
    """Ray, as the runs of this process come to share it.

    Attributes:
        spent: Seconds that clients took in this process, over all runs.
        refused: Whether Ray could not be started.
    """

    def __init__(self) -> None:
        self.spent, self.refused = 0.0, False
        self._starting = False

    def start(self, config: Config) -> None:
        """Start Ray beside what this process does, unless it starts or runs already."""
        if self.refused or self._starting or _is_for(config):
            return
        self._starting = True
        threading.Thread(target=self._bring_up, args=(config,), daemon=True).start()

    def _bring_up(self, config: Config) -> None:
        from fedexp.backends.ray_session import start_ray

        try:
            start_ray(config)
        except Exception as error:
            self.refused = True
            log.warning("clients stay in this process: %s", reason(error))
        self._starting = False
        if not self.refused:
            threading.Event().wait()  # Linux ends Ray's processes with the thread that started them

    def is_ready(self, config: Config) -> bool:
        """Say whether workers for an experiment can take work at once."""
        if self.refused or self._starting or not _is_for(config):
            return False
        from fedexp.backends.ray_session import is_warm

        return is_warm()


def _is_for(config: Config) -> bool:
    if "ray" not in sys.modules:
        return False
    from fedexp.backends.ray_session import is_for

    return is_for(config)


_later = Later()


def stay_here() -> None:
    """Leave clients in this process for good."""
    _later.refused = True


class LaterGrid(CohortGrid):
    """Run clients in this process, one after another, and on Ray's workers as soon as there are some.

    Ray is started once that would save more than it takes: by what is left of this run, or by what this
    process has spent already. The latter bounds what a series of short runs may lose.

    Args:
        config: The experiment.
        data: What server and clients hold.
        later: Shared by the runs of a process.
    """

    asks_again = True

    def __init__(self, config: Config, data: FederatedData, later: Later = _later) -> None:
        super().__init__()
        assert isinstance(config.backend, RayBackend)
        self._config, self._data, self._later = config, data, later
        self._app = client_app(ClientNode(config, lambda: data))
        self._saved = 1 - 1 / config.backend.workers_for(config.clients.cohort)
        self._on_workers: CohortGrid | None = None

    def exchange(self, messages: list[Message]) -> Iterator[Message]:
        """Run the clients in order here, each when its reply is asked for; the rest on workers."""
        left = _Left(self._config, self._data, messages)
        for done, message in enumerate(messages):
            if (workers := self._workers()) is not None:
                workers.on_reply = lambda more, done=done: self.on_reply(done + more)  # type: ignore[misc]
                yield from workers.exchange(messages[done:])
                return
            reply, seconds = self._here(message)
            self._later.spent += seconds
            if self._saved * max(self._later.spent, left.after(message, seconds)) > START:
                self._later.start(self._config)
            self.on_reply(done + 1)
            yield reply
            del reply  # who took it may be done with it

    def _here(self, message: Message) -> tuple[Message, float]:
        client, start = message.metadata.dst_node_id, time.perf_counter()
        state = self.states.get(client, RecordDict())
        reply, state = call_client(self._app, message, self._config.clients.num, state)
        self.keep(client, kept(state))
        return reply, time.perf_counter() - start

    def _workers(self) -> CohortGrid | None:
        """Return what runs clients on workers, once these can take work."""
        if self._on_workers is None and self._later.is_ready(self._config):
            from fedexp.backends.ray import RayGrid

            self._on_workers = RayGrid(self._config, self._data)
            self._on_workers.states = self.states
        return self._on_workers


class _Left:
    """How long the rest of a run would take in this process, from how long its clients took so far.

    Of the examples per second the most that any client had: the first one warms up.

    Args:
        config: The experiment.
        data: What server and clients hold.
        messages: Of an exchange; only training is foreseen.
    """

    def __init__(self, config: Config, data: FederatedData, messages: list[Message]) -> None:
        self._size, self._examples, self._rate = data.partition.size, 0, math.inf
        if messages and messages[0].metadata.message_type == MessageType.TRAIN:
            told = messages[0].content.config_records[CONFIG]
            sizes = [self._size(message.metadata.dst_node_id) for message in messages]
            rounds_left = config.num_rounds - int(str(told[SERVER_ROUND]))
            self._examples = sum(sizes) * (1 + rounds_left)

    def after(self, message: Message, seconds: float) -> float:
        """Return the seconds that are left after a client that took so many."""
        if not self._examples:
            return 0.0
        size = self._size(message.metadata.dst_node_id)
        self._examples = max(0, self._examples - size)
        self._rate = min(self._rate, seconds / max(1, size))
        return self._rate * self._examples
