"""A SuperLink, seen from the program that runs a ServerApp: the corners of Flower that this needs.

Flower's own programs start an app's two halves as processes of their own. Here the program itself takes
the ServerApp's task, so that a run's folder, terminal and signals are where the run was asked for.
``tests/flower/test_superlink.py`` says what is needed of Flower.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import httpx
from flwr.cli.build import build_fab_from_files
from flwr.common.constant import SubStatus
from flwr.common.serde import fab_to_proto, run_from_proto
from flwr.proto.control_pb2 import StartRunRequest, StopRunRequest
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullTaskInputRequest,
    PushTaskOutputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.serverapp import Grid
from flwr.supercore.constant import TaskType
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.interceptors import (
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.retry import RetryInvoker, constant
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid import HttpGrid

UNREACHABLE = httpx.HTTPError
"""What is raised where a SuperLink or a SuperNode does not answer, or refuses."""

PATIENCE = 30.0
"""Seconds for which a SuperLink that does not answer is tried again."""

_ACQUIRE = frozenset({"/flwr.proto.Runtime/AcquireTask"})


class Tasks:
    """The tasks that a SuperLink or a SuperNode has for whoever executes apps.

    Args:
        address: ``host:port``.
        certificates: PEM of the authorities that may have signed its certificate; None is the system's.
        insecure: Whether it is spoken to in plain text.
        secret: What ``--superexec-auth-secret-file`` holds, where it was started with one.
    """

    def __init__(
        self,
        address: str,
        *,
        certificates: bytes | None = None,
        insecure: bool = False,
        secret: bytes | None = None,
    ) -> None:
        interceptors: list[Any] = [_version("SuperExec")]
        if secret:
            signed = SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods=_ACQUIRE)
            interceptors.append(signed)
        self._client = RuntimeHttpClient.from_server_address(
            server_address=address,
            insecure=insecure,
            root_certificates=certificates,
            interceptors=interceptors,
        )

    def take_server(self) -> tuple[int, str] | None:
        """Take the ServerApp that waited longest: its run and token; None if there is none."""
        return self._take(TaskType.SERVER_APP)

    def take_client(self) -> str | None:
        """Take the ClientApp that waited longest, and return its token; None if there is none."""
        taken = self._take(TaskType.CLIENT_APP)
        return None if taken is None else taken[1]

    def _take(self, kind: TaskType) -> tuple[int, str] | None:
        found = self._client.AcquireTask(AcquireTaskRequest(supported_task_types=[kind]))
        return (found.task.run_id, found.token) if found.token else None

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


class Submission:
    """One run on a SuperLink, of which this process is the ServerApp.

    Args:
        address: ``host:port`` of the SuperLink.
        certificates: PEM of the authorities that may have signed its certificate; None is the system's.
        insecure: Whether it is spoken to in plain text.
        secret: What the SuperLink's ``--superexec-auth-secret-file`` holds, where it has one.
    """

    def __init__(
        self,
        address: str,
        *,
        certificates: bytes | None = None,
        insecure: bool = False,
        secret: bytes | None = None,
    ) -> None:
        self._address, self._certificates, self._insecure = address, certificates, insecure
        self._control = ControlHttpClient.from_server_address(
            server_address=address,
            insecure=insecure,
            root_certificates=certificates,
            interceptors=[_version("flwr CLI")],
        )
        self._tasks = Tasks(address, certificates=certificates, insecure=insecure, secret=secret)
        self._grid: HttpGrid | None = None
        self._heartbeat: HeartbeatSender | None = None

    def submit(self, app: bytes) -> int:
        """Submit an app, and return the run's number."""
        fab = Fab(hashlib.sha256(app).hexdigest(), app, {})
        return int(self._control.StartRun(StartRunRequest(fab=fab_to_proto(fab))).run_id)

    def take(self) -> tuple[int, str] | None:
        """Take the ServerApp that waited longest: its run and token; None if there is none."""
        return self._tasks.take_server()

    def join(self, token: str) -> Grid:
        """Become the ServerApp that a token is for, and return Flower's grid."""
        grid = HttpGrid(self._address, self._insecure, self._certificates, token=token)
        # Flower's own would send this process Ctrl-C where a SuperLink that was started anew knows no
        # such run.
        grid._retry_invoker = RetryInvoker(
            lambda: constant(1.0), httpx.TransportError, max_tries=None, max_time=PATIENCE
        )
        found = grid._runtime_client.PullTaskInput(PullTaskInputRequest())
        TaskIdentity.task_id, TaskIdentity.run_id = found.task_id, found.run.run_id
        TaskIdentity.node_id = found.context.node_id
        grid.set_run(run_from_proto(found.run))
        # Without a sign of life every half a minute, the SuperLink takes the run for dead.
        self._heartbeat = HeartbeatSender(partial(_beat, grid._runtime_client))
        self._heartbeat.start()
        self._grid = grid
        return grid

    def stop(self, run: int) -> None:
        """Have the SuperLink stop a run that was submitted."""
        with suppress(UNREACHABLE):
            self._control.StopRun(StopRunRequest(run_id=run))

    def finish(self, problem: str = "") -> None:
        """Tell the SuperLink that the run is over, and why, where it failed."""
        status = SubStatus.FAILED if problem else SubStatus.COMPLETED
        if self._heartbeat is not None and self._heartbeat.is_running:
            self._heartbeat.stop()
        if self._grid is not None:
            self._grid._retry_invoker.max_tries = 1
            with suppress(UNREACHABLE):  # it may be gone, which the run has told of
                self._grid._runtime_client.PushTaskOutput(
                    PushTaskOutputRequest(sub_status=status, details=problem)
                )
            self._grid.close()
        self._tasks.close()
        self._control.close()


def bundle(files: Mapping[str, str]) -> bytes:
    """Return a Flower app as the one file that is submitted: path -> text."""
    return build_fab_from_files({name: text.encode() for name, text in files.items()})[0]


def _beat(client: RuntimeHttpClient) -> bool:
    with suppress(UNREACHABLE):  # what is wrong is told where the round loop meets it
        client.SendTaskHeartbeat(SendTaskHeartbeatRequest())
    return True


def _version(program: str) -> RuntimeVersionHttpInterceptor:
    return RuntimeVersionHttpInterceptor(component_name=program)
