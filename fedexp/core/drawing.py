"""A process that draws a run's pictures beside it, and meanwhile imports what draws them."""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from multiprocessing.connection import Connection
from multiprocessing.util import Finalize

from fedexp.core import forked, preloading
from fedexp.core.machine import usable_cpus

Draw = Callable[[], bytes]
"""Draws a picture: a PNG."""

PATIENCE = 60.0
"""Seconds to wait for a picture; then it is drawn here: the process may have been stopped."""


class DrawingProcess:
    """A fork of this process that draws what it is asked for, one picture after another."""

    def __init__(self) -> None:
        self._process, self._pipe = forked.fork(_serve, beside=[])
        self._owner, self._numbers, self._is_ready = os.getpid(), count(), False
        self._owed, self._drawn = deque[int](), dict[int, bytes | None]()
        Finalize(None, self.dismiss, exitpriority=0)  # else Python would wait for it

    def ask(self, draw: Draw) -> Draw:
        """Have a picture drawn; see :func:`ahead`."""
        # A fork must not use its parent's pipe.
        if os.getpid() != self._owner or not self.is_ready():
            return draw
        self._take()  # else both ends could wait to send
        number = next(self._numbers)
        with suppress(OSError):  # it is gone
            self._pipe.send(draw)
            self._owed.append(number)

        def taken() -> bytes:
            self._take()
            return self._drawn.pop(number, None) or draw()

        return taken

    def is_ready(self, patience: float = 0.0) -> bool:
        """Say whether it can draw: it has shown so, at the latest after so many seconds."""
        if not self._is_ready:
            with suppress(EOFError, OSError):
                self._is_ready = self._pipe.poll(patience) and bool(self._pipe.recv())
        return self._is_ready

    def dismiss(self) -> None:
        """End the process, whatever it is at."""
        self._process.kill()
        self._process.join()

    def _take(self) -> None:
        """Wait for all pictures that were asked for."""
        while self._owed:
            try:
                if not self._pipe.poll(PATIENCE):
                    self._process.kill()
                self._drawn[self._owed[0]] = self._pipe.recv()
            except (EOFError, OSError):  # it is gone, perhaps in the middle of a picture
                self._owed.clear()
                return
            self._owed.popleft()


_drawing: DrawingProcess | None = None


def begin() -> None:
    """Start the process where it can be forked, and where there is a second CPU for it."""
    global _drawing
    preloading.wait()
    # What another thread has locked would stay locked in the fork.
    is_safe = forked.can_fork() and threading.active_count() == 1
    if _drawing is None and is_safe and usable_cpus() > 1:
        with suppress(OSError):  # no memory, or too many processes
            _drawing = DrawingProcess()


def ahead(draw: Draw) -> Draw:
    """Begin to draw a picture.

    Args:
        draw: Draws it, in whatever process.

    Returns:
        Waits for the picture and returns it. If the process could not draw it, it is drawn here.
    """
    return draw if _drawing is None else _drawing.ask(draw)


def _serve(pipe: Connection, parent: int) -> None:
    with open(os.devnull, "w") as nowhere:  # it must not write to the terminal
        for stream in (1, 2):
            os.dup2(nowhere.fileno(), stream)
    forked.belong_to(parent)
    from fedexp.core.pictures import warm_up

    if _tried(warm_up) is None:
        return
    with suppress(EOFError, OSError):
        pipe.send(True)
        while True:
            pipe.send(_tried(pipe.recv()))


def _tried(draw: Draw) -> bytes | None:
    """Draw a picture; None after an error or a warning, which the program, drawing it again, logs."""
    said = _Said()
    logging.getLogger().addHandler(said)
    try:
        with warnings.catch_warnings(record=True) as warned:
            png = draw()
    except Exception:
        return None
    finally:
        logging.getLogger().removeHandler(said)
    return None if said.records or warned else png


class _Said(logging.Handler):
    """Keeps what is logged as a warning, or as worse."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records = list[logging.LogRecord]()

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
