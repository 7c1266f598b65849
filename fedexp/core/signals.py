"""SIGTERM and SIGHUP end a run as orderly as Ctrl-C does: schedulers and closed terminals send them.

Before there is anything to put in order, :func:`ending_at_once` spares the user a traceback. Where a
launcher has processes of its own, :func:`before_stopping` lets them finish first.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

_received: list[int] = []
_first: list[Callable[[], None]] = []


def stop_on_signals() -> None:
    """Let SIGTERM and SIGHUP raise KeyboardInterrupt; a second one ends the process where it is.

    One that is ignored, as ``nohup`` arranges, stays ignored.
    """
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and _settable() and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _stop)


def stop_once() -> None:
    """Let the first signal that comes raise KeyboardInterrupt, and ignore all later ones.

    For the processes of a launcher, which Ctrl-C reaches twice: from the terminal and from the program.
    """
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name) and _settable():
            signal.signal(getattr(signal, name), _stop_once)


def before_stopping(first: Callable[[], None]) -> None:
    """Let a signal, Ctrl-C included, call a function before it raises KeyboardInterrupt."""
    _first.append(first)
    if _settable() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)


@contextmanager
def ending_at_once() -> Iterator[None]:
    """Let Ctrl-C end the process within a block that has nothing to put in order.

    A KeyboardInterrupt would be shown as a traceback there, and libraries swallow it while they load.
    """
    if not _settable() or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, lambda number, _: os._exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def held_back() -> Iterator[None]:
    """Run a block that nothing may interrupt, such as a fork; signals that come meanwhile count after it.

    Python swallows what is raised while it puts its locks in order around a fork, and leaves them locked.
    """
    came, handlers = list[int](), dict[int, Any]()
    try:
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and _settable() and signal.getsignal(number) is not None:
                handlers[number] = signal.getsignal(number)
                signal.signal(number, lambda number, _: came.append(number))
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)


def ignore_signals() -> None:
    """Let nothing interrupt what is left to do once all is written."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def obey() -> None:
    """Raise KeyboardInterrupt if one of the signals came and a library swallowed what it raised.

    Imports of large packages do, here and there.
    """
    if _received:
        raise KeyboardInterrupt


def received() -> bool:
    """Say whether one of the signals came."""
    return bool(_received)


def exit_code() -> int:
    """Return the exit code of a program that KeyboardInterrupt has reached: 128 and the signal."""
    return 128 + (_received[0] if _received else signal.SIGINT)


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_DFL)
    _received.append(number)  # Ray raises a KeyboardInterrupt of its own in place of ours
    for function in _first:
        function()
    raise KeyboardInterrupt


def _stop_once(number: int, _frame: FrameType | None) -> None:
    if not _received:
        _received.append(number)
        raise KeyboardInterrupt


@contextmanager
def kept() -> Iterator[None]:
    """Run a block that takes over SIGTERM, as Ray's start does, and give it back.

    If it comes meanwhile, Ray's handler exits; that counts as the signal, too.
    """
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit:
        if handler not in (_stop, _stop_once):
            raise
        _received.append(signal.SIGTERM)
        raise KeyboardInterrupt from None
    finally:
        if handler is not None and _settable():
            ended = _received and handler is not _stop_once
            signal.signal(signal.SIGTERM, signal.SIG_DFL if ended else handler)


def _settable() -> bool:
    return threading.current_thread() is threading.main_thread()
