"""Which settings can change a run's results, and which runs were run again and then completed."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable

import pandas as pd

NAME = "name"
"""The experiment's name, which tells rows apart where nothing else does."""

# These settings change no result, or are told apart otherwise.
_NOT_SETTINGS = (
    *(NAME, "mode", "seed", "metrics", "objective", "save_every"),
    *("dataset.root", "strategy.name"),
)
_NOT_GROUPS = ("backend.", "tracking.", "checkpoint.")


def changes_results(key: str) -> bool:
    """Say whether an option of config.yaml, less the seed and the strategy, can change results."""
    return key not in _NOT_SETTINGS and not key.startswith(_NOT_GROUPS)


def superseded(
    settings: pd.DataFrame,
    stopped: Iterable[int],
    completed: Iterable[int],
    started: Callable[[int], float],
) -> dict[int, int]:
    """Find the runs that did not complete, but did when they were run again.

    Args:
        settings: config.yaml of every run, flat, indexed by run.
        stopped: The runs that did not come to their end.
        completed: The runs that did.
        started: Run -> when it was started, in seconds since 1970.

    Returns:
        Run -> the last completed run of the same configuration that was started after it.
    """
    keys = [
        k for k in map(str, settings) if changes_results(k) or k in (NAME, "seed", "strategy.name")
    ]

    def same(run: int) -> Hashable:
        return tuple(repr(value) for value in settings.loc[run, keys])

    waiting = [run for run in stopped if settings.loc[run].notna().any()]
    if not waiting:
        return {}
    again: dict[Hashable, list[int]] = {}
    for run in completed:
        again.setdefault(same(run), []).append(run)
    taken = {}
    for run in waiting:
        later = [other for other in again.get(same(run), []) if started(other) > started(run)]
        if later:
            taken[run] = max(later, key=started)
    return taken
