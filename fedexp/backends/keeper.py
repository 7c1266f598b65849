"""The process behind a rehearsal: it starts SuperLink and SuperNodes, and ends all of them with itself.

It goes by its standard input, which the program that wants the rehearsal holds open: however that program
ends, the kernel closes it. All of Flower is imported here once and every program is a fork of this
process, which saves seconds a node; so is every client, which would otherwise import torch for every
message.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

HOST = "127.0.0.1"
START = 120.0
"""Seconds within which a SuperLink must be there."""

POLL = 0.1
"""Seconds between two looks for messages to clients."""

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Start what standard input asks for, say where it is, and stay until nobody listens."""
    wanted = json.loads(sys.stdin.buffer.readline())
    folder, held = Path(wanted["folder"]), list(map(str, wanted["held"]))
    children: list[int] = []
    try:
        from fedexp.flower import hosting, superlink

        ports = _free_ports(1 + len(held))
        addresses = [f"{HOST}:{port}" for port in ports]
        secret = folder / "secret"
        common = [
            "--isolation",
            "process",
            "--superexec-auth-secret-file",
            str(secret),
            "--insecure",
        ]
        at = ["--host", HOST, "--port"]
        nothing = "--disable-runtime-dependency-installation"
        link = [*common, *at, str(ports[0]), nothing]
        children.append(_fork(partial(hosting.serve, "flower-superlink", link), folder))
        _wait_for(ports[0], children[0])
        for number, port in enumerate(ports[1:]):
            node = [*common, *at, str(port), "--superlink", addresses[0]]
            node += ["--node-config", held[number]]
            children.append(_fork(partial(hosting.serve, "flower-supernode", node), folder))
        print(json.dumps({"superlink": addresses[0], "pids": children}), flush=True)
        import fedexp.backends.node  # noqa: F401  # so that no client need import it

        tasks = [
            superlink.Tasks(a, insecure=True, secret=secret.read_bytes()) for a in addresses[1:]
        ]
        while not select.select([sys.stdin], [], [], POLL)[0]:
            children = _living(children)
            for number, (address, waiting) in enumerate(zip(addresses[1:], tasks, strict=True)):
                with suppress(superlink.UNREACHABLE):  # it is starting, or was killed
                    token = waiting.take_client()
                    if token is not None:
                        home = folder / f"node-{number}"
                        children.append(
                            _fork(
                                partial(hosting.run_client, address, token, os.getpid()),
                                home,
                            )
                        )
    except Exception as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)
    finally:
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def _fork(program: Callable[[], None], home: Path) -> int:
    """Run a program in a process of its own, which ends with this one, and return its number.

    Args:
        program: Need not return.
        home: Where Flower keeps what is that program's.
    """
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.environ["FLWR_HOME"] = str(home)
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, 0)
        os.dup2(2, 1)
        program()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()  # into the log, as what a program of its own would leave
    finally:
        os._exit(code)


def _living(children: list[int]) -> list[int]:
    """Return the children that still run; the others are buried."""
    living = []
    for child in children:
        with suppress(ChildProcessError):
            if os.waitpid(child, os.WNOHANG) == (0, 0):
                living.append(child)
    return living


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind((HOST, 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _wait_for(port: int, server: int) -> None:
    """Wait until a server takes connections.

    Raises:
        RuntimeError: If it ends, or takes too long.
    """
    until = time.monotonic() + START
    while time.monotonic() < until:
        if os.waitpid(server, os.WNOHANG) != (0, 0):
            raise RuntimeError("the SuperLink ended while it started")
        with suppress(OSError), socket.create_connection((HOST, port), timeout=1):
            return
        time.sleep(0.1)
    raise RuntimeError(f"the SuperLink was not there after {START:g} s")


if __name__ == "__main__":
    main()
