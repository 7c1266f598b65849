"""``backend=flower``: Flower's own Simulation Runtime, the reference for the fast path.

``run_simulation`` is deprecated upstream; nothing outside this module knows of it.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from functools import partial

from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from fedexp.backends.base import Body
from fedexp.backends.ray_session import start_ray
from fedexp.config.backend import RayBackend
from fedexp.config.schema import Config
from fedexp.core.options import FedexpError
from fedexp.core.roles import State
from fedexp.data.federated import FederatedData
from fedexp.federation.client import ClientNode
from fedexp.federation.dealing import federate
from fedexp.flower.app import RESTORE, STATE, client_app
from fedexp.flower.grid import CohortGrid
from fedexp.flower.internals import current_run, identify, set_sender
from fedexp.flower.messages import CONFIG, PARTITION_ID

PULL_INTERVAL = 0.1
"""Seconds between two looks for replies; Flower's own."""


class FlowerGrid(CohortGrid):
    """Flower's grid, with partition ids in place of its random node ids.

    Args:
        inner: Flower's.
        stop: Once set, waiting ends the thread that waits: its runtime is gone.
    """

    def __init__(self, inner: Grid, stop: threading.Event) -> None:
        run_id = current_run()
        super().__init__()
        identify(run_id)  # messages must keep the run that Flower's runtime knows
        self._inner, self._stop = inner, stop
        self._node_of: dict[int, int] = {}
        self._trained: set[int] = set()

    def discover(self, num_partitions: int) -> None:
        """Ask every node once which partition it holds."""
        nodes: list[int] = []
        while len(nodes) < num_partitions:
            self._wait(0.01)
            nodes = list(self._inner.get_node_ids())
        question = RecordDict({CONFIG: ConfigRecord()})
        replies = self._send(
            [Message(question, dst_node_id=node, message_type="query") for node in nodes]
        )
        for reply in replies:
            if reply.has_error():
                raise FedexpError(f"backend=flower: {_reason(reply.error.reason or '')}")
            answer = reply.content[CONFIG]
            assert isinstance(answer, ConfigRecord)
            self._node_of[int(str(answer[PARTITION_ID]))] = reply.metadata.src_node_id

    def exchange(self, messages: list[Message]) -> list[Message]:
        """Send through Flower's runtime, and translate ids both ways."""
        partition_of = {node: client for client, node in self._node_of.items()}
        for message in messages:
            message.metadata.dst_node_id = self._node_of[message.metadata.dst_node_id]
        replies = self._send(messages)
        for reply in replies:
            set_sender(reply, partition_of[reply.metadata.src_node_id])
            if reply.has_error():
                reply.error = Error(reply.error.code, _reason(reply.error.reason or ""))
        self.on_reply(len(replies))
        self._trained |= {reply.metadata.src_node_id for reply in replies}
        return replies

    def client_states(self) -> dict[int, State]:
        """Ask the nodes that were at work since the last time; the others keep what they had."""
        asked = [
            Message(RecordDict(), dst_node_id=self._node_of[client], message_type=f"query.{STATE}")
            for client in sorted(self._trained)
        ]
        partition_of = {node: client for client, node in self._node_of.items()}
        for reply in self._send(asked):
            self.states[partition_of[reply.metadata.src_node_id]] = reply.content
        self._trained.clear()
        return super().client_states()

    def restore_states(self, states: Mapping[int, State]) -> None:
        """Send every node what it is to keep."""
        super().restore_states(states)
        self._send(
            [
                Message(
                    self.states[client],
                    dst_node_id=self._node_of[client],
                    message_type=f"query.{RESTORE}",
                )
                for client in states
            ]
        )

    def _send(self, messages: list[Message]) -> list[Message]:
        """Do what ``send_and_receive`` of Flower's grid does, until told to stop."""
        pending = set(self._inner.push_messages(messages))
        replies: list[Message] = []
        while pending:
            found = list(self._inner.pull_messages(pending))
            pending -= {reply.metadata.reply_to_message_id for reply in found}
            replies += found
            if pending:
                self._wait(PULL_INTERVAL)
        return replies

    def _wait(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise SystemExit


def _reason(told: str) -> str:
    """Return what a client raised, in one line, as the other backends have it.

    Flower tells the traceback of Ray's actor, with processes and addresses in it.
    """
    raised = re.search(
        r"^(?:\w+\.)*(\w+: .*?)\n\nThe above exception was the direct", told, re.M | re.S
    )
    return " ".join((raised[1] if raised else told).split())


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
    app = ServerApp()
    ended: list[BaseException] = []
    stop = threading.Event()

    @app.main()
    def main(grid: Grid, _: object) -> None:
        flower_grid = FlowerGrid(grid, stop)
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
            client_app(ClientNode(config, partial(_federate_once, config))),
            num_supernodes=config.clients.num,
            backend_config={
                "client_resources": {
                    "num_cpus": config.backend.num_cpus_per_worker,
                    "num_gpus": config.backend.num_gpus_per_worker,
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
