"""Memory that a process and its fork have in common: the arrays of answers need not go through a pipe.

A pipe holds too little for them, so a thread would have to send them, which disturbs the training beside
it; and they would be copied more often.
"""

from __future__ import annotations

import mmap
import pickle
from collections.abc import Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

COUNT = 2
"""Slots: how often a fork can send before its parent has taken anything."""

SIZE = 32 * 2**20
"""Bytes of a slot; arrays beyond go through the pipe. What is never used takes no memory."""

ALIGNED = 64
"""Bytes at whose multiples arrays begin, and what says how long one is."""


class Slots:
    """Places for arrays, which a fork fills in turn and its parent empties in the same order.

    It must be made before the fork.

    Raises:
        OSError: If there is no room.
    """

    def __init__(self) -> None:
        self._memory = np.frombuffer(mmap.mmap(-1, COUNT * SIZE), np.uint8).reshape(COUNT, SIZE)
        self._free = get_context("fork").Semaphore(COUNT)
        self._sent = self._received = 0

    def send(self, what: object, pipe: Connection, *, patiently: bool = True) -> bool:
        """Put all arrays in something into the next slot, and send the rest.

        Args:
            what: Can be pickled.
            pipe: To the parent.
            patiently: Whether to wait until the slot is free.

        Returns:
            Whether it was sent; False only where the slot is not free, and is not waited for.
        """
        if not self._free.acquire(patiently):
            return False
        slot, start = self._memory[self._sent % COUNT], 0
        self._sent += 1

        def put(buffer: pickle.PickleBuffer) -> bool:
            """Return whether an array is to go through the pipe."""
            nonlocal start
            with buffer.raw() as raw:
                first = start + ALIGNED
                if first + raw.nbytes > SIZE:
                    return True
                slot[start:first].view(np.int64)[0] = raw.nbytes
                slot[first : first + raw.nbytes] = raw
                start = _after(first, raw.nbytes)
            return False

        pipe.send_bytes(pickle.dumps(what, pickle.HIGHEST_PROTOCOL, buffer_callback=put))
        return True

    def receive(self, pipe: Connection) -> Any:
        """Take what was sent next; its arrays are copies, and the slot is free again."""
        rest = pipe.recv_bytes()
        slot = self._memory[self._received % COUNT]
        self._received += 1
        found = pickle.loads(rest, buffers=_copies(slot))
        self._free.release()
        return found


def _copies(slot: Any) -> Iterator[Any]:
    """Yield a slot's arrays, each behind its number of bytes; only as many as are asked for are there."""
    start = 0
    while True:
        first = start + ALIGNED
        size = int(slot[start:first].view(np.int64)[0])
        yield slot[first : first + size].copy()
        start = _after(first, size)


def _after(start: int, size: int) -> int:
    return -(-(start + size) // ALIGNED) * ALIGNED
