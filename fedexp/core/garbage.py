"""When Python looks for garbage: the million objects that torch's import leaves take it 0.2 s.

And when the C library gives memory back that nobody uses any more, and when it does not.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

_settled: list[bool] = []


def settle() -> None:
    """Leave what there is by now out of every later collection.

    For a program that does nothing but run jobs, after the first of them: it stays for good.
    """
    if not _settled:
        gc.collect()
        gc.freeze()
        _settled.append(True)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Run rounds without a collection that looks through all that imports have left."""
    gc.collect()
    if _settled:
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()  # a notebook's own garbage is frozen with the rest


KEPT = 64 * 2**20
"""Bytes that are kept for the next step. For McMahan's CNN in batches of 50, half of them do."""

_TRIM, _MAPPED, _LARGEST = -1, -3, 32 * 2**20  # mallopt's names, and the largest that it takes


def keep_for_next_step() -> None:
    """Have the C library keep what a step of training gives back, for the next one.

    Left alone, glibc gives arrays of megabytes back to the system and asks for them again, page by page:
    a tenth of a step of a convolutional network.
    """
    global _is_keeping
    if _is_keeping or sys.platform != "linux":
        return
    _is_keeping = True
    option = getattr(ctypes.CDLL(None), "mallopt", None)
    if option is not None:  # musl has nothing of the kind
        option(_TRIM, KEPT)
        option(_MAPPED, _LARGEST)


_is_keeping = False
"""Whether the C library was told so in this process, or in one that it was forked from."""

RETURNED_EVERY = 10.0
"""Seconds. Memory that was given back is had again page by page, which costs short rounds a tenth."""


def give_back() -> None:
    """Give memory that is free back to the system, after what took much of it for a moment.

    Left alone, glibc keeps it, in pieces, one heap a thread: every test of a convolutional network then
    makes the process larger. Does nothing where it was done a moment ago.
    """
    global _returned_at
    if sys.platform != "linux" or time.monotonic() - _returned_at < RETURNED_EVERY:
        return
    _returned_at = time.monotonic()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # musl has nothing of the kind
        trim(0)


_returned_at = -RETURNED_EVERY
