"""Training examples that are held out, so that what is selected is not selected on test data."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from fedexp.core.seeding import Purpose, derive_rng
from fedexp.data.assignment import Assignment

SERVER, CLIENTS, BOTH = "server", "clients", "both"
"""Who holds examples out: ``dataset.validation_by``."""


def held_by_server(share: float, by: str) -> float:
    """Return the share that the server takes before the rest is dealt."""
    return share if by in (SERVER, BOTH) else 0.0


def held_by_clients(share: float, by: str) -> float:
    """Return the share of its own examples that every client holds out."""
    return share if by in (CLIENTS, BOTH) else 0.0


def num_held_out(share: float, num_examples: int) -> int:
    """Return how many of so many examples a share is, rounded down: one at least is trained on.

    Args:
        share: In [0, 1).
        num_examples: >= 0.
    """
    # 0.29 * 100 is 28.999999999999996.
    return max(0, min(math.floor(share * num_examples + 1e-9), num_examples - 1))


def hold_out(
    held: Assignment,
    labels: npt.NDArray[np.int64] | None,
    share: float,
    seed: int,
    purpose: Purpose,
    skip: int = 0,
) -> tuple[Assignment, Assignment]:
    """Divide what every holder has into what it trains on and what it selects on.

    A holder of ``n`` examples holds ``floor(share * n)`` of them out, so that one at least is left.
    Labels keep their proportions: of a label with ``c`` examples, about ``share * c`` are held out, and
    the last one only when there are no others left of any label.

    Args:
        held: Who has which example.
        labels: Of all examples, shape (N,); None where targets are no labels: chance alone decides then.
        share: In (0, 1).
        seed: Decides which examples of a label are held out.
        purpose: What the draw is for.
        skip: Examples of holders before these, which are not here: the draw is the same as with them.

    Returns:
        What is trained on, in the order of before, and what is held out. Together they are ``held``.
    """
    rng, sizes = derive_rng(seed, purpose), held.sizes
    holder = np.repeat(np.arange(held.num_clients), sizes)
    chance = rng.random(skip + len(holder))[skip:]
    label = np.zeros(len(holder), dtype=np.int64) if labels is None else labels[held.indices]
    by_label = np.lexsort((chance, label, holder))
    starts = np.flatnonzero(
        np.diff(holder[by_label], prepend=-1) | np.diff(label[by_label], prepend=-1)
    )
    counts = np.diff(starts, append=len(holder))
    place = np.arange(len(holder)) - np.repeat(starts, counts) + 1
    # The j-th of a label's c examples is taken at the share j / c of it: the last one at last.
    taken_at = np.empty(len(holder))
    taken_at[by_label] = place / np.repeat(counts, counts)
    in_turn = np.lexsort((chance, taken_at, holder))
    turn = np.arange(len(holder)) - np.repeat(held.offsets[:-1], sizes)
    quota = np.array([num_held_out(share, int(size)) for size in sizes], dtype=np.int64)
    out = np.zeros(len(holder), dtype=bool)
    out[in_turn] = turn < np.repeat(quota, sizes)
    return _part(held, ~out, sizes - quota), _part(held, out, quota)


def _part(
    held: Assignment, mask: npt.NDArray[np.bool_], sizes: npt.NDArray[np.int64]
) -> Assignment:
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return Assignment(held.indices[mask], offsets)
