"""A process that draws a run's pictures beside it, and meanwhile imports what draws them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from multiprocessing.connection import Connection
from multiprocessing.util import Finalize

from fedexp.core import forked
from fedexp.core.machine import usable_cpus

Draw = Callable[[], bytes]
"""Draws a picture: a PNG."""


class Artist:
    """A fork of this process that draws what it is asked for, one picture after another."""

    def __init__(self) -> None:
        self._process, self._pipe = forked.fork(_serve, beside=[])
        self._owner, self._numbers = os.getpid(), count()
        self._owed, self._drawn = deque[int](), dict[int, bytes | None]()
        Finalize(None, self.dismiss, exitpriority=0)  # else Python would wait for it

    def ask(self, draw: Draw) -> Draw:
        """Have a picture drawn; see :func:`ahead`."""
        if os.getpid() != self._owner:  # a fork has no say in what its parent's artist does
            return draw
        self._take()  # while nobody takes what is drawn, nothing more is read
        number = next(self._numbers)
        with suppress(OSError):  # it is gone
            self._pipe.send(draw)
            self._owed.append(number)

        def taken() -> bytes:
            self._take()
            return self._drawn.pop(number, None) or draw()

        return taken

    def dismiss(self) -> None:
        """End the process, whatever it is at."""
        self._process.kill()
        self._process.join()

    def _take(self) -> None:
        """Wait for all pictures that were asked for."""
        while self._owed:
            try:
                self._drawn[self._owed[0]] = self._pipe.recv()
            except (EOFError, OSError):  # it is gone, perhaps in the middle of a picture
                self._owed.clear()
                return
            self._owed.popleft()


_artist: Artist | None = None


def begin() -> None:
    """Start the process, where it can be forked and does not take the time of what it draws for."""
    global _artist
    if _artist is None and forked.can_fork() and usable_cpus() > 1:
        with suppress(OSError):  # no memory, or too many processes
            _artist = Artist()


def ahead(draw: Draw) -> Draw:
    """Begin to draw a picture.

    Args:
        draw: Draws it, in whatever process.

    Returns:
        What waits for the picture. Where nobody else drew it, or could not, it is drawn here then.
    """
    return draw if _artist is None else _artist.ask(draw)


def _serve(pipe: Connection, parent: int) -> None:
    forked.belong_to(parent)
    from fedexp.core.pictures import warm_up

    warm_up()
    with suppress(EOFError, OSError):
        while True:
            pipe.send(_tried(pipe.recv()))


def _tried(draw: Draw) -> bytes | None:
    """Draw a picture; what goes wrong goes wrong again where there is a log."""
    try:
        return draw()
    except Exception:
        return None
