"""``backend=deployment``: a client on each SuperNode, here or on machines of their own."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedexp.backends.base import Body, run_server
from fedexp.backends.flower_app import app_files
from fedexp.backends.node_grid import NodeGrid
from fedexp.backends.rehearsal import rehearsal
from fedexp.config.backend import DeploymentBackend
from fedexp.config.schema import Config
from fedexp.core.options import FedexpError
from fedexp.core.replies import told
from fedexp.data.federated import FederatedData
from fedexp.flower.superlink import UNREACHABLE, Submission, bundle

TAKE = 20.0
"""Seconds within which a run that was submitted must be there to be taken."""

_given: list[Grid] = []


@contextmanager
def through(grid: Grid) -> Iterator[None]:
    """Run a block in which clients are reached through a grid that Flower made, as for ``flwr run``."""
    _given.append(grid)
    try:
        yield
    finally:
        _given.pop()


def run(config: Config, data: FederatedData | None, server: Body, *, verbose: bool = False) -> None:
    """Run a server function against the clients on SuperNodes.

    Args:
        config: The experiment.
        data: Not sent: nodes read their own. None where nobody else has them.
        server: The body of the ServerApp.
        verbose: Let Flower speak.

    Raises:
        FedexpError: If the SuperLink cannot be reached, or clients have no SuperNode.
    """
    backend = config.backend
    assert isinstance(backend, DeploymentBackend)
    with reached("once it does, fedexp resume goes on with the run"):
        if _given:
            _serve(_given[-1], config, backend, server)
        else:
            _submit(config, backend, server)


@contextmanager
def reached(remedy: str) -> Iterator[None]:
    """Run a block that needs the SuperLink; say in a line that it is not there."""
    try:
        yield
    except UNREACHABLE as error:
        raise FedexpError(
            f"backend=deployment: the SuperLink does not answer, or refuses ({told(error)}); {remedy}"
        ) from error


def _serve(grid: Grid, config: Config, backend: DeploymentBackend, server: Body) -> None:
    owners = config.dataset.spec.owners if config.dataset.remote else ()
    nodes = NodeGrid(grid, config.clients.num, backend.timeout, owners)
    nodes.discover()
    run_server(nodes, server)


def _submit(config: Config, backend: DeploymentBackend, server: Body) -> None:
    """Submit the experiment to a SuperLink, and be its ServerApp."""
    held = backend.nodes_here(config.clients.num, own_data=config.dataset.remote)
    with joined(backend, held, bundle(app_files(config, driven=True))) as grid:
        _serve(grid, config, backend, server)


@contextmanager
def joined(backend: DeploymentBackend, held: Sequence[str], app: bytes) -> Iterator[Grid]:
    """Run a block as the ServerApp of an app that is submitted to a SuperLink.

    Args:
        backend: Which SuperLink, or that one is to be started here.
        held: What SuperNodes hold, where they are to be started here.
        app: What :func:`fedexp.flower.superlink.bundle` returned.

    Raises:
        FedexpError: If somebody else is its ServerApp, or another run waited longer.
    """
    submission, problem = _submission(backend, held), "it was broken off"
    try:
        yield _joined(submission, submission.submit(app))
        problem = ""
    except FedexpError as error:
        problem = str(error)
        raise
    finally:
        submission.finish(problem)


def _submission(backend: DeploymentBackend, held: Sequence[str]) -> Submission:
    if backend.superlink is None:
        here = rehearsal(held)
        return Submission(here.address, insecure=True, secret=here.secret)
    return Submission(
        backend.superlink,
        certificates=_content("root_certificates", backend.root_certificates),
        insecure=backend.insecure,
        secret=_content("secret", backend.secret),
    )


def _content(option: str, path: str | None) -> bytes | None:
    try:
        return None if path is None else Path(path).expanduser().read_bytes()
    except OSError as error:
        raise FedexpError(f"backend.{option}={path} cannot be read: {error.strerror}") from error


def _joined(submission: Submission, run: int) -> Grid:
    """Become the ServerApp of a run.

    Raises:
        FedexpError: If somebody else did, or another run waited longer.
    """
    until = time.monotonic() + TAKE
    while time.monotonic() < until:
        taken = submission.take()
        if taken is not None:
            grid = submission.join(taken[1])
            if taken[0] == run:
                return grid
            submission.stop(run)
            raise FedexpError(
                "backend=deployment: another run was submitted to the SuperLink at the same moment; one "
                "program at a time, please: start both again, one after the other"
            )
        time.sleep(0.1)
    submission.stop(run)
    raise FedexpError(
        "backend=deployment: the SuperLink runs ServerApps itself: start it with --isolation process, or "
        "let it run this one, by fedexp app and flwr run"
    )


class DrivenApp(ServerApp):
    """The ServerApp of a run whose submitter is its ServerApp: it must not run anywhere else."""

    def __call__(self, grid: Grid, context: Context) -> None:
        """Refuse."""
        raise RuntimeError(
            "this run is driven by the program that submitted it: start the SuperLink with "
            "--isolation process"
        )
