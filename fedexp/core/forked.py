"""Jobs in processes that are forked from this one, beside one another.

A fork has at once what this process has imported and read, which takes a process of its own seconds. It
has none of its threads, which torch starts as it trains and would wait for: nothing is forked afterwards.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess

from fedexp.core import preloading, signals
from fedexp.core.workers import PATIENCE

among_others = False
"""Whether this process is one of several that run jobs at the same time."""

_PARENT_DIES = 1  # PR_SET_PDEATHSIG

INTERRUPTED = 128 + signal.SIGINT
"""Exit code of a process whose function was interrupted."""


HELD = 4 * 2**20
"""Bytes that a pipe holds. By itself it holds 200 KB, and who sends more waits until somebody reads."""

is_program = False
"""Whether this process is the program ``fedexp``: in a notebook, code changes and other threads run."""

has_trained = False
"""Whether models were trained in this process."""


def can_fork() -> bool:
    """Say whether a fork of this process can train; on macOS, system libraries break in one."""
    return sys.platform == "linux" and is_program and not has_trained


@dataclass(eq=False)
class _Worker:
    process: ForkProcess
    pipe: Connection


class Crew:
    """Runs jobs in forked processes, so many at a time; a process goes on to the next job.

    Args:
        size: How many at a time.
        job: Runs a job, by its number, and returns what it has to say.
        ended: Told of each: its number, what it returned, and the exit code of its process, if that
            ended. None stands for what a process that died has not returned.
    """

    def __init__(
        self,
        size: int,
        job: Callable[[int], float | None],
        ended: Callable[[int, float | None, int], None],
    ) -> None:
        self._size, self._job, self._ended = size, job, ended
        self._idle: list[_Worker] = []
        self._busy: dict[_Worker, int] = {}

    def wait_for_place(self) -> None:
        """Wait until a further job can start at once."""
        while not self._idle and len(self._busy) >= self._size:
            self._wait()

    def start(self, number: int) -> None:
        """Run a job as soon as there is a process for it."""
        self.wait_for_place()
        worker = self._idle.pop() if self._idle else self._fork()
        self._busy[worker] = number
        with suppress(BrokenPipeError):  # the process died; who waits for it finds that out
            worker.pipe.send(number)

    def wait(self) -> None:
        """Wait until all jobs have ended."""
        while self._busy:
            self._wait()

    def finish(self) -> None:
        """Wait until all jobs have ended, and then all processes."""
        self.wait()
        for worker in self._idle:
            worker.pipe.close()
        for worker in self._idle:
            worker.process.join()
        self._idle.clear()

    def stop(self, patience: float = PATIENCE) -> None:
        """Have all processes end what they do in order, and kill those that do not."""
        processes = [worker.process for worker in (*self._idle, *self._busy)]
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(patience)
            process.kill()

    def _fork(self) -> _Worker:
        pipes = [worker.pipe for worker in (*self._idle, *self._busy)]
        return _Worker(*fork(_serve, self._job, beside=pipes))

    def _wait(self) -> None:
        """Wait until at least one job has ended."""
        by_pipe = {worker.pipe: worker for worker in self._busy}
        for ready in wait(list(by_pipe)):
            worker = by_pipe[ready]  # type: ignore[index]
            number, code = self._busy.pop(worker), 0
            try:
                value = worker.pipe.recv()
                self._idle.append(worker)
            except (EOFError, ConnectionResetError):  # the process died
                worker.process.join()
                value, code = None, worker.process.exitcode or 0
            self._ended(number, value, code)


def fork(
    serve: Callable[..., object], *args: object, beside: Sequence[Connection]
) -> tuple[ForkProcess, Connection]:
    """Fork this process.

    Args:
        serve: Called in the fork with its end of a pipe, this process's id, and the arguments.
        args: The arguments, which need not be sent anywhere.
        beside: This process's ends of the pipes to other forks.

    Returns:
        The fork, and this process's end of the pipe.

    Raises:
        OSError: If there is no room for a further process.
    """
    preloading.wait()
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    for end in (ours, theirs):
        with socket.fromfd(end.fileno(), socket.AF_UNIX, socket.SOCK_STREAM) as held:
            held.setblocking(True)  # whatever socket.setdefaulttimeout was told
            held.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, HELD)  # Linux: or what it allows
    # The end of another fork's pipe, kept open in this one, would have that one wait for ever.
    inherited = [ours, *beside]
    process = context.Process(target=_begin, args=(inherited, serve, theirs, os.getpid(), *args))
    with signals.held_back():  # the child keeps these handlers until it sets its own
        process.start()
    theirs.close()
    return process, ours


def _begin(inherited: Sequence[Connection], serve: Callable[..., object], *args: object) -> None:
    for pipe in inherited:
        pipe.close()
    serve(*args)


def _serve(pipe: Connection, parent: int, job: Callable[[int], float | None]) -> None:
    """Run jobs in a process of its own, until nobody sends any more."""
    try:
        signals.stop_once()
        end_with_parent(parent)
        with suppress(EOFError):
            while True:
                pipe.send(job(pipe.recv()))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    finally:
        if "wandb" in sys.modules:
            sys.modules["wandb"].teardown()  # ends its service process


def belong_to(parent: int) -> None:
    """Leave signals to the parent, and end when it does, however that comes about.

    Raises:
        KeyboardInterrupt: If it is gone already.
    """
    # The terminal tells all processes; the one that asks puts in order what there is to be.
    for name in (signal.SIGINT, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_with_parent(parent, signal.SIGKILL)


def end_with_parent(parent: int, how: signal.Signals = signal.SIGTERM) -> None:
    """Be sent a signal when the parent is gone, which nobody can wait for any more.

    Raises:
        KeyboardInterrupt: If it is gone already.
    """
    ctypes.CDLL(None).prctl(_PARENT_DIES, how, 0, 0, 0)
    if os.getppid() != parent:  # it is gone already
        raise KeyboardInterrupt
