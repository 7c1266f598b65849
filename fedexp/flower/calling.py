"""Calling a client: whatever it raises or returns, and however long it takes, there is one reply."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from flwr.app import Context, Message

from fedexp.core.replies import told
from fedexp.flower.internals import set_sender
from fedexp.flower.messages import error_reply


class OutOfTimeError(BaseException):
    """A client that takes longer than it may; no ``Exception``, lest the client catch it."""


def out_of_time(seconds: float) -> str:
    """Return the reason of a client that took too long."""
    return f"no reply within backend.timeout={seconds:g} s"


def answer(
    app: Callable[[Message, Context], Message],
    message: Message,
    context: Context,
    *,
    timeout: float | None = None,
    in_worker: bool = False,
) -> Message:
    """Call a client on a message, and return its reply, or one that says what was wrong.

    Args:
        app: What clients do.
        message: Its ``dst_node_id`` is the client's.
        context: The client's; changed in place where it succeeds.
        timeout: Seconds that it may take; None is for ever.
        in_worker: Whether this process serves clients only. Elsewhere a KeyboardInterrupt is the user's.
    """
    client = message.metadata.dst_node_id
    reply: Any
    try:
        with _limited(timeout):
            reply = app(message, context)
        problem = _problem(reply, client)
    except KeyboardInterrupt as error:
        if not in_worker:
            raise
        problem = told(error)
    except OutOfTimeError:
        problem = out_of_time(timeout or 0.0)
    except BaseException as error:
        problem = told(error)
    if problem is None:
        found: Message = reply
        return found
    failed = error_reply(message, problem)
    set_sender(failed, client)  # the client was given the message, and may have written to it
    return failed


def _problem(reply: Any, client: int) -> str | None:
    if not isinstance(reply, Message):
        return f"the client returned {type(reply).__name__}, not a message"
    sender = reply.metadata.src_node_id
    if sender != client:
        return f"the reply says that it is from node {sender}"
    if not (reply.has_error() or reply.has_content()):
        return "the reply is empty"
    return None


@contextmanager
def _limited(seconds: float | None) -> Iterator[None]:
    """Raise OutOfTimeError in a block that takes too long; only where Python code runs now and then."""
    if seconds is None or not _can_be_woken():
        yield
        return
    before = signal.signal(signal.SIGALRM, _alarm)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _can_be_woken() -> bool:
    here = threading.current_thread() is threading.main_thread()
    return here and hasattr(signal, "SIGALRM")  # Windows has none


def _alarm(number: int, frame: FrameType | None) -> NoReturn:
    raise OutOfTimeError
