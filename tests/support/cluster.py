"""A Ray cluster of several nodes on this machine, started as users start one: by ``ray start``.

python tests/support/cluster.py             a head and two machines in network namespaces, with addresses,
                                            files and processes of their own; the lesson there and in this
                                            process: the same bits. Words that follow are handed to fedexp

It needs root (for the namespaces), iproute2 and util-linux.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))  # this file is a program, too

from support.namespaces import Network

SECONDS = 60
"""How long a node may take until the cluster knows it, on a busy machine."""

NETWORK = Network("fedray", "10.213.78")

HIDDEN = ("/tmp", "/var/tmp", "/dev/shm")
"""What a machine of its own has for itself; whatever a test writes lies there, too."""


class Cluster:
    """Nodes that run. Number 0 is the head, which has no CPUs of its own.

    Args:
        folder: Where the head has its files, and each node its log.
        machines: How many namespaces there are; 0 if all nodes are on this machine.

    Attributes:
        address: What ``backend.address`` must be.
        token: The cluster's; who joins it needs it as ``RAY_AUTH_TOKEN``.
    """

    def __init__(self, folder: Path, machines: int = 0) -> None:
        self._folder, self._machines = folder, machines
        self.address = f"{self._host(0)}:{_free_port()}"
        self.token = secrets.token_hex(32)
        self._nodes: dict[int, subprocess.Popen[bytes]] = {}

    @property
    def environment(self) -> dict[str, str]:
        """What programs need that join the cluster."""
        return {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}

    def inside(self) -> list[str]:
        """Return the words before a command that is to run on the head's machine."""
        return NETWORK.inside(0) if self._machines else []

    def start(self, number: int, first: str = "") -> None:
        """Start a node.

        Args:
            number: 0 is the head.
            first: What the shell of a machine of its own does before.
        """
        words = [*self._words(number, first), sys.executable, "-m", "ray.scripts.scripts", "start"]
        words += ["--block", f"--node-ip-address={self._host(number)}", "--disable-usage-stats"]
        if number == 0:
            words += ["--head", f"--port={self.address.split(':')[1]}", "--num-cpus=0"]
            words += [f"--temp-dir={self._folder}", "--include-dashboard=false"]
        else:
            words += [f"--address={self.address}", "--num-cpus=1"]
        with self.log(number).open("wb") as log:
            self._nodes[number] = subprocess.Popen(
                words, env=self.environment, stdout=log, stderr=log
            )

    def lose_at_work(self, number: int) -> None:
        """Pull a machine's plug while a client is at work on it.

        Raises:
            TimeoutError: If none is within :data:`SECONDS`.
        """
        end = time.monotonic() + SECONDS
        while not self._is_at_work(number):
            if time.monotonic() > end:
                raise TimeoutError(f"no client came to node {number}")
            time.sleep(0.1)
        self.lose(number)

    def _is_at_work(self, number: int) -> bool:
        for process in psutil.Process(self._nodes[number].pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if "ray::_run_clients" in process.cmdline():
                    return True
        return False

    def lose(self, number: int) -> None:
        """Pull a machine's plug: kill all that runs on it, and wait until nothing does."""
        process = self._nodes.pop(number)
        if process.poll() is None:
            below = psutil.Process(process.pid).children(recursive=True)
            for other in [process, *below]:
                with suppress(ProcessLookupError):
                    os.kill(other.pid, signal.SIGKILL)
        process.wait()

    def lose_all(self) -> None:
        """Kill whatever runs."""
        for number in list(self._nodes):
            self.lose(number)

    def log(self, number: int) -> Path:
        """Return the file that has what a node said."""
        return self._folder / f"{number}.log"

    def wait_for(self, number: int) -> None:
        """Wait until so many nodes live, the head among them.

        Raises:
            TimeoutError: If they take longer than :data:`SECONDS`.
        """
        ask = [
            "import ray",
            f"ray.init({self.address!r}, log_to_driver=False)",
            "print(len([node for node in ray.nodes() if node['Alive']]))",
        ]
        end, told = time.monotonic() + SECONDS, ""
        while time.monotonic() < end:
            asked = subprocess.run(
                [*self.inside(), sys.executable, "-c", "; ".join(ask)],
                env=self.environment,
                capture_output=True,
                text=True,
                check=False,
            )
            told = asked.stdout + asked.stderr
            if asked.stdout.split()[-1:] == [str(number)]:
                return
            time.sleep(0.5)
        raise TimeoutError(f"{number} nodes of Ray did not come up: {told}")

    def _host(self, number: int) -> str:
        return NETWORK.address(number) if self._machines else "127.0.0.1"

    def _words(self, number: int, first: str) -> list[str]:
        """Return what gives a node an address, processes and temporary folders of its own."""
        if not self._machines:
            return []
        if number == 0:
            return NETWORK.inside(0)  # with the driver's
        apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        steps = [*(f"mount -t tmpfs none {folder}" for folder in HIDDEN), first or ":", "cd /"]
        shell = ["sh", "-e", "-c", "\n".join([*steps, 'exec "$@"']), "sh"]
        return [*NETWORK.inside(number), *apart, *shell]


@contextmanager
def cluster(nodes: int, *, machines: int = 0) -> Iterator[Cluster]:
    """Start a head without CPUs and some nodes with one CPU each; end them all at the end.

    Args:
        nodes: How many, beside the head.
        machines: How many there may be that have network namespaces, mounts and processes of their own,
            the head's included; 0 has all nodes share this machine's.
    """
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # a socket's path may have 107 characters
    found = Cluster(Path(folder), machines)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.enter_context(NETWORK.made(machines))
        stack.callback(found.lose_all)
        for number in range(nodes + 1):
            found.start(number)
            found.wait_for(number + 1)
        yield found


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def main() -> None:
    """Run the lesson on machines of their own and in this process, and compare."""
    fedexp = [sys.executable, "-m", "fedexp", *sys.argv[1:]]
    with cluster(nodes=2, machines=3) as found, tempfile.TemporaryDirectory() as folder:
        print(f"Ray at {found.address}, clients at {NETWORK.address(1)} and {NETWORK.address(2)}")
        apart = [*found.inside(), *fedexp, f"backend.address={found.address}"]
        apart.append("hydra.run.dir=apart")
        subprocess.run(apart, cwd=folder, env=found.environment, check=True)
        here = [*fedexp, "backend=inline", "hydra.run.dir=here"]
        subprocess.run(here, cwd=folder, check=True)
        for name in ("metrics.csv", "failures.csv", "model.safetensors"):
            one, other = (Path(folder, run, name).read_bytes() for run in ("apart", "here"))
            print(f"{name}: {'the same bytes' if one == other else 'DIFFERENT'}")
            if one != other:
                sys.exit(1)


if __name__ == "__main__":
    main()
