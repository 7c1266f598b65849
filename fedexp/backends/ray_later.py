"""``backend=ray`` where nobody said how many workers: clients here until Ray's workers can take over.

Where a client runs changes no bit. So a short run is over before Ray's workers would have imported torch,
and a long one goes on without them until they have: in this process, and in forks of it where it can be
forked (:mod:`fedexp.backends.forks`).
"""

from __future__ import annotations

import logging
import math
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator

from flwr.app import Message, MessageType, RecordDict
from flwr.clientapp import ClientApp

from fedexp.backends.base import Body, call_client, kept, run_server
from fedexp.backends.forks import Forks
from fedexp.config.backend import RayBackend
from fedexp.config.schema import Config
from fedexp.core import forked
from fedexp.core.files import reason
from fedexp.data.federated import FederatedData
from fedexp.federation.client import ClientNode
from fedexp.flower.app import client_app
from fedexp.flower.grid import CohortGrid
from fedexp.flower.messages import CONFIG, SERVER_ROUND

log = logging.getLogger("fedexp")

START = 5.0
"""Seconds that Ray's start takes, until its workers have imported torch (docs/speed.md)."""

LONG = 60.0
"""Seconds of training from which on Ray takes over from forks, too. It is no faster, but outlives a
client that ends its process."""


def run(config: Config, data: FederatedData, server: Body, *, verbose: bool = False) -> None:
    """Run a server function against the clients of an experiment.

    Args:
        config: The experiment.
        data: What server and clients hold.
        server: The body of the ServerApp.
        verbose: Let Flower speak.
    """
    try:
        run_server(LaterGrid(config, data), server)
    finally:
        _later.let_go()


class Later:
    """Ray, as the runs of this process come to share it.

    Attributes:
        spent: Seconds that clients took here, over all runs.
        refused: Whether Ray could not be started.
    """

    def __init__(self) -> None:
        self.spent, self.refused = 0.0, False
        self._starting = False
        self._forks: Forks | None = None

    def forks(self, config: Config, app: ClientApp) -> Forks | None:
        """Return the forks of this process that run clients; None where there are none.

        They are made for the first run of a command, before anything is trained, and serve all its runs.
        What another framework than torch has started before may not work in them.

        Args:
            config: The experiment.
            app: What its clients do.
        """
        backend = config.backend
        assert isinstance(backend, RayBackend)
        if backend.threads > 1 or forked.among_others or config.model.framework != "PyTorch":
            return None
        if self._forks is None and forked.can_fork():
            self._forks = Forks(backend.workers_for(config.clients.cohort) - 1, app, config)
        elif self._forks is not None:
            self._forks.begin(config)
        return self._forks

    def let_go(self) -> None:
        """End the forks if they owe answers to an exchange that broke off: another would take them."""
        if self._forks is not None and self._forks.busy:
            self._forks.dismiss()

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
    """Run clients in this process and its forks, and on Ray's workers as soon as there are some.

    Where there are no forks, Ray is started once that would save more than it takes: by what is left of
    this run, or by what this process has spent already. The latter bounds what a series of short runs may
    lose. Where there are some, Ray takes over in runs that are long.

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
        self._forks = later.forks(config, self._app)
        self._on_workers: CohortGrid | None = None

    def exchange(self, messages: list[Message]) -> Iterator[Message]:
        """Run the clients here, each when its reply is asked for; the rest on workers."""
        self._later.let_go()
        if self._forks and self._workers() is None:
            yield from self._together(self._forks, messages)
            return
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

    def _together(self, forks: Forks, messages: list[Message]) -> Iterator[Message]:
        """Take clients one by one, as the forks do beside it; whoever has time takes the next."""
        waiting, done, start = deque(messages), 0, time.perf_counter()
        while waiting or forks.busy:
            for reply, state in forks.answers(waiting, patiently=not waiting):
                if not reply.has_error():
                    self.keep(reply.metadata.src_node_id, state)
                done += 1
                self.on_reply(done)
                yield reply
                del reply  # who took it may be done with it
            forks.feed(waiting, self.states)
            if waiting and not forks.told:  # who is not heard is not fed
                done += 1
                reply, _ = self._here(waiting.popleft())
                self.on_reply(done)
                yield reply
                del reply
        seconds = time.perf_counter() - start
        self._later.spent += seconds
        if max(self._later.spent, seconds * _rounds_left(self._config, messages)) > LONG:
            self._later.start(self._config)

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

            if self._forks:
                self._forks.dismiss()
            self._on_workers = RayGrid(self._config, self._data)
            self._on_workers.states = self.states
        return self._on_workers


def _rounds_left(config: Config, messages: list[Message]) -> int:
    """Return how many rounds there are from that of an exchange on; 0 if it does not train."""
    if not messages or messages[0].metadata.message_type != MessageType.TRAIN:
        return 0
    told = messages[0].content.config_records[CONFIG]
    return 1 + config.num_rounds - int(str(told[SERVER_ROUND]))


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
        if rounds_left := _rounds_left(config, messages):
            sizes = [self._size(message.metadata.dst_node_id) for message in messages]
            self._examples = sum(sizes) * rounds_left

    def after(self, message: Message, seconds: float) -> float:
        """Return the seconds that are left after a client that took so many."""
        if not self._examples:
            return 0.0
        size = self._size(message.metadata.dst_node_id)
        self._examples = max(0, self._examples - size)
        self._rate = min(self._rate, seconds / max(1, size))
        return self._rate * self._examples
