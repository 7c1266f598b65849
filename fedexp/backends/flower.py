"""``backend=flower``: Flower's own Simulation Runtime, the reference for the fast path.

``run_simulation`` is deprecated upstream; nothing outside this module knows of it.
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Iterable, Mapping
from functools import partial

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from fedexp.backends.base import GRACE, TRIES, Body, worker_died
from fedexp.backends.ray_session import start_ray
from fedexp.config.backend import RayBackend
from fedexp.config.schema import Config
from fedexp.core.options import FedexpError
from fedexp.core.replies import one_line
from fedexp.core.roles import State
from fedexp.data.federated import FederatedData
from fedexp.federation.client import ClientNode
from fedexp.federation.dealing import federate
from fedexp.flower.app import RESTORE, STATE, TAKE_BACK, WorkerApp, client_app
from fedexp.flower.calling import out_of_time
from fedexp.flower.grid import CohortGrid
from fedexp.flower.internals import CLIENT_RAISED, current_run, identify, set_sender
from fedexp.flower.messages import CONFIG, PARTITION_ID, error_reply

PULL_INTERVAL = 0.1
"""Seconds between two looks for replies; Flower's own."""


class FlowerGrid(CohortGrid):
    """Flower's grid, with partition ids in place of its random node ids.

    Args:
        inner: Flower's.
        stop: Once set, waiting ends the thread that waits: its runtime is gone.
        timeout: Seconds that a client may take; None is for ever.
    """

    def __init__(self, inner: Grid, stop: threading.Event, timeout: float | None = None) -> None:
        run_id = current_run()
        super().__init__()
        identify(run_id)  # messages must keep the run that Flower's runtime knows
        self._inner, self._stop, self._timeout = inner, stop, timeout
        self._node_of: dict[int, int] = {}
        self._trained: set[int] = set()
        self._answered: set[int] = set()

    def discover(self, num_partitions: int) -> None:
        """Ask every node once which partition it holds."""
        nodes: list[int] = []
        while len(nodes) < num_partitions:
            self._wait(0.01)
            nodes = list(self._inner.get_node_ids())
        question = RecordDict({CONFIG: ConfigRecord()})
        for reply in self._ask(
            [Message(question, dst_node_id=node, message_type="query") for node in nodes]
        ):
            answer = reply.content[CONFIG]
            assert isinstance(answer, ConfigRecord)
            self._node_of[int(str(answer[PARTITION_ID]))] = reply.metadata.src_node_id

    def exchange(self, messages: list[Message]) -> list[Message]:
        """Send through Flower's runtime, and translate ids both ways."""
        asked = [
            Message(
                message.content,
                self._node_of[message.metadata.dst_node_id],
                message.metadata.message_type,
            )
            for message in messages
        ]
        clients = [message.metadata.dst_node_id for message in messages]
        answers = self._send(asked, self._patience(len(asked)))
        found = dict(zip(clients, answers, strict=True))
        self.on_reply(len(found))
        replies = []
        for message in messages:
            client = message.metadata.dst_node_id
            reply = found[client]
            if reply.has_error():
                reply = error_reply(message, _reason(reply))
            set_sender(reply, client)
            replies.append(reply)
        self._answered = {k for k, reply in found.items() if not reply.has_error()}
        self._trained |= set(found)
        return replies

    def _patience(self, num_clients: int) -> float:
        """Return for how long to wait at most: a client that is late is stopped where it runs."""
        return math.inf if self._timeout is None else GRACE + self._timeout * num_clients

    def take_back(self, clients: Iterable[int]) -> None:
        """Have clients forget what they kept since: theirs is kept by Flower's runtime."""
        self._ask(
            [
                Message(RecordDict(), self._node_of[client], f"query.{TAKE_BACK}")
                for client in sorted(self._answered & set(clients))
            ]
        )

    def client_states(self) -> dict[int, State]:
        """Ask the nodes that were at work since the last time; the others keep what they had."""
        asked = [
            Message(RecordDict(), dst_node_id=self._node_of[client], message_type=f"query.{STATE}")
            for client in sorted(self._trained)
        ]
        partition_of = {node: client for client, node in self._node_of.items()}
        for reply in self._ask(asked):
            self.states[partition_of[reply.metadata.src_node_id]] = reply.content
        self._trained.clear()
        return super().client_states()

    def restore_states(self, states: Mapping[int, State]) -> None:
        """Send every node what it is to keep."""
        super().restore_states(states)
        self._ask(
            [
                Message(
                    self.states[client],
                    dst_node_id=self._node_of[client],
                    message_type=f"query.{RESTORE}",
                )
                for client in states
            ]
        )

    def _ask(self, messages: list[Message]) -> list[Message]:
        """Send what no client may miss: without it, one goes on with another state than is thought.

        Raises:
            FedexpError: If a client has no answer.
        """
        replies = self._send(messages)
        for reply in replies:
            if reply.has_error():
                raise FedexpError(f"backend=flower: {_reason(reply)}")
        return replies

    def _send(self, messages: list[Message], patience: float = math.inf) -> list[Message]:
        """Do what ``send_and_receive`` of Flower's grid does, until told to stop.

        Returns:
            One reply per message, in their order, whoever says that it is from.
        """
        ids = list(self._inner.push_messages(messages))
        until, found = time.monotonic() + patience, dict[str, Message]()
        while len(found) < len(ids):
            pending = [key for key in ids if key not in found]
            for reply in self._inner.pull_messages(pending):
                found.setdefault(reply.metadata.reply_to_message_id, reply)
            if len(found) < len(ids):
                if time.monotonic() > until:
                    break
                self._wait(PULL_INTERVAL)
        late = out_of_time(self._timeout or 0.0)
        return [
            found[key] if key in found else error_reply(message, late)
            for key, message in zip(ids, messages, strict=True)
        ]

    def _wait(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise SystemExit


def _death(reply: Message) -> str:
    """Return the name of the error that says that a client's worker died; empty if it did not."""
    if not reply.has_error() or reply.error.code == CLIENT_RAISED:
        return ""
    found = re.match(
        r"<class 'ray\.exceptions\.((?:Actor|Worker|Node|Object)\w+)'>", reply.error.reason or ""
    )
    return found[1] if found else ""


def _reason(reply: Message) -> str:
    """Return why a client failed, in one line, as the other backends have it."""
    death = _death(reply)
    return worker_died(death) if death else _raised(reply.error.reason or "")


def _raised(told: str) -> str:
    """Return what was raised outside a client; Flower tells the traceback of Ray's actor."""
    raised = re.search(
        r"^(?:\w+\.)*(\w+: .*?)\n\nThe above exception was the direct", told, re.M | re.S
    )
    return one_line(raised[1] if raised else told)


def run(config: Config, data: FederatedData, server: Body, *, verbose: bool = False) -> None:
    """Run a server function against clients in Flower's Simulation Runtime.

    The runtime joins the Ray session that is started here, and shuts it down at the end.

    Args:
        config: The experiment.
        data: Not sent: actors read their own, once per run.
        server: The body of the ServerApp.
        verbose: Let Flower speak.
    """
    from flwr.simulation import run_simulation

    assert isinstance(config.backend, RayBackend)
    start_ray(config)
    backend = config.backend
    app = ServerApp()
    ended: list[BaseException] = []
    stop = threading.Event()

    @app.main()
    def main(grid: Grid, _: object) -> None:
        flower_grid = FlowerGrid(grid, stop, backend.timeout)
        try:
            flower_grid.discover(config.clients.num)
            server(flower_grid)
        except (
            KeyboardInterrupt,
            SystemExit,
        ) as error:  # this is a thread of Flower's, which takes no notice of it
            ended.append(error)

    try:
        run_simulation(
            app,
            client_app(
                ClientNode(config, partial(_federate_once, config)), WorkerApp(backend.timeout)
            ),
            num_supernodes=config.clients.num,
            backend_config={
                "client_resources": {
                    "num_cpus": backend.num_cpus_per_worker,
                    "num_gpus": backend.num_gpus_per_worker,
                    # Handed on to Ray's actors: one that died is replaced, and asked again.
                    "max_restarts": -1,
                    "max_task_retries": TRIES,
                }
            },
            verbose_logging=verbose,
        )
    finally:
        stop.set()  # after Ctrl-C the server's thread would wait for replies for ever
    if ended:
        raise ended[0]


_data: dict[str, FederatedData] = {}


def _federate_once(config: Config) -> FederatedData:
    """Read the data in an actor, once per run: Flower's runtime ships the app with every message."""
    key = repr(config)
    if key not in _data:
        _data.clear()
        _data[key] = federate(config)
    return _data[key]
