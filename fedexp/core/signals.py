"""SIGTERM and SIGHUP end a run as orderly as Ctrl-C does: schedulers and closed terminals send them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_received: list[int] = []


def stop_on_signals() -> None:
    """Let SIGTERM and SIGHUP raise KeyboardInterrupt; a second one ends the process where it is.

    One that is ignored, as ``nohup`` arranges, stays ignored.
    """
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and _settable() and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _stop)


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
        if handler is not _stop:
            raise
        _received.append(signal.SIGTERM)
        raise KeyboardInterrupt from None
    finally:
        if handler is not None and _settable():
            signal.signal(signal.SIGTERM, signal.SIG_DFL if _received else handler)


def _settable() -> bool:
    return threading.current_thread() is threading.main_thread()
