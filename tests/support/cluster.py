"""A Ray cluster of several nodes on this machine, started as users start one: by ``ray start``."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

SECONDS = 60
"""How long a node may take until the cluster knows it, on a busy machine."""


@dataclass(frozen=True)
class Cluster:
    """Nodes that run.

    Attributes:
        address: What ``backend.address`` must be.
        token: The cluster's; who joins it needs it as ``RAY_AUTH_TOKEN``.
    """

    address: str
    token: str


@contextmanager
def cluster(nodes: int) -> Iterator[Cluster]:
    """Start a head without CPUs and some nodes with one CPU each; end them all at the end.

    Args:
        nodes: How many, beside the head.
    """
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # a socket's path may have 107 characters
    found = Cluster(f"127.0.0.1:{_free_port()}", secrets.token_hex(32))
    env = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": found.token}
    head = ["--head", f"--port={found.address.split(':')[1]}", "--num-cpus=0"]
    started = []
    try:
        for number in range(nodes + 1):
            first = [*head, f"--temp-dir={folder}", "--include-dashboard=false"]
            words = first if number == 0 else [f"--address={found.address}", "--num-cpus=1"]
            started.append(_start(words, env, Path(folder) / f"{number}.log"))
            _wait_for(found, number + 1, env)
        yield found
    finally:
        for process in started:
            _end(process)
        shutil.rmtree(folder, ignore_errors=True)


def _start(words: list[str], env: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block"]
    with log.open("wb") as output:
        return subprocess.Popen(
            [*command, "--node-ip-address=127.0.0.1", "--disable-usage-stats", *words],
            env=env,
            stdout=output,
            stderr=output,
        )


def _wait_for(found: Cluster, number: int, env: dict[str, str]) -> None:
    """Wait until so many nodes live.

    Raises:
        TimeoutError: If they take longer than :data:`SECONDS`.
    """
    ask = [
        "import ray",
        f"ray.init({found.address!r}, log_to_driver=False)",
        "print(len([node for node in ray.nodes() if node['Alive']]))",
    ]
    end, told = time.monotonic() + SECONDS, ""
    while time.monotonic() < end:
        asked = subprocess.run(
            [sys.executable, "-c", "; ".join(ask)],
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        told = asked.stdout + asked.stderr
        if asked.stdout.split()[-1:] == [str(number)]:
            return
        time.sleep(0.5)
    raise TimeoutError(f"{number} nodes of Ray did not come up: {told}")


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        below = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        for child in below:
            try:
                child.kill()
            except psutil.NoSuchProcess:
                continue
    process.wait()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
