"""Sessions of Ray that are this user's alone, by corners of Ray that are not its public interface.

By default Ray listens on every address of the machine and runs whatever anybody sends there. A session
that is started in :func:`private_session` listens on loopback, takes nothing without its token, and is
gone soon after the process that started it was killed. ``docs/reliability.md`` says what is left.
"""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ray._private import ray_constants
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

ORPHANS_WAIT = 5
"""Seconds that Ray's agents go on looking for a session that was killed; Ray's own is 60."""

JOINS = 2
"""How often Ray may try to join a cluster; Ray's own is 20, a second or more apart."""

_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Where it is 0, as by default on macOS and Windows, Ray keeps to 127.0.0.1 with every port."""


@contextmanager
def private_session() -> Iterator[None]:
    """Run a block that starts Ray; the session is for this process and its own workers.

    The token is new each time, and known to the session's processes by their environment: it stands in
    no file and on no command line. This process's environment is as before afterwards.
    """
    ours = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        _LOOPBACK: "0",
        "RAY_gcs_rpc_server_reconnect_timeout_s": str(ORPHANS_WAIT),
    }
    before = {name: os.environ.get(name) for name in ours}
    spread = ray_constants.ENABLE_RAY_CLUSTER
    os.environ.update(ours)
    ray_constants.ENABLE_RAY_CLUSTER = False
    read_environment()
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = spread
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def joining() -> Iterator[None]:
    """Run a block that joins a cluster whose head accepts connections; Ray would try for minutes."""
    read_environment()  # a cluster has a token of its own, or none
    before = ray_constants.NUM_REDIS_GET_RETRIES
    ray_constants.NUM_REDIS_GET_RETRIES = min(before, JOINS)
    try:
        yield
    finally:
        ray_constants.NUM_REDIS_GET_RETRIES = before


def read_environment() -> None:
    """Let Ray look anew at the environment's settings and token, which it reads once in a process."""
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def session_folder() -> str | None:
    """Return where sessions keep sockets and logs: in a folder that is this user's alone.

    Ray's own, ``/tmp/ray``, can be written by everybody on the machine, with the sockets in it. A short
    path, because a socket's may have 107 characters. None where users have no numbers (Windows).
    """
    if not hasattr(os, "getuid"):
        return None
    base = os.environ.get("RAY_TMPDIR") or "/tmp"
    folder = Path(base) / f"fedexp-ray-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        found = folder.lstat()
        private = stat.S_ISDIR(found.st_mode) and not stat.S_IMODE(found.st_mode) & 0o077
        if not (private and found.st_uid == os.getuid()):  # somebody was here first
            folder = Path(tempfile.mkdtemp(prefix="fedexp-ray-", dir=base))
    return str(folder / "ray")  # Ray opens this one to everybody
