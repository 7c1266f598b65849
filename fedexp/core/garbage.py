"""When Python looks for garbage: the million objects that torch's import leaves take it 0.2 s."""

from __future__ import annotations

import gc
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
