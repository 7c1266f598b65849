"""On which data runs selected what they came to: said wherever their numbers are."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedexp.analysis.results import Results

VALIDATION, TEST = "validation", "test"
"""What ``selected_on`` may be."""

LAST = "after the last round"
CHOSEN = "of the best round on validation data"
MIXED = f"{LAST}, or {CHOSEN} where a run has any"

TUNING, FINAL = "tune.json", "final"
"""What says what ``fedexp tune`` was asked for, and its folder of the best on fresh seeds."""

TUNED = ("optimization_results.yaml", TUNING)
"""What lies in or above the folder of a sweep whose options were chosen by results."""


def tuned_options(runs: Iterable[str]) -> frozenset[str]:
    """Return the options that were tuned strategy by strategy, where all runs are those of the best.

    Args:
        runs: Their folders, ``TUNING/final/RUN``.
    """
    found: set[str] = set()
    for sweep in {Path(run).resolve().parent for run in runs}:
        try:
            told = json.loads((sweep.parent / TUNING).read_text()) if sweep.name == FINAL else {}
            spaces = told.get("spaces", {}).values()
            found |= {line.partition("=")[0].lstrip("+") for space in spaces for line in space}
        except (OSError, ValueError, AttributeError):
            told = {}
        if not told:
            return frozenset()
    return frozenset(found)


def selected_in(summary: Mapping[str, Any]) -> int | dict[int, int] | None:
    """Return the round that validation selected, by client where each has its own; None if none did.

    Args:
        summary: What stands in summary.json.
    """
    best = summary.get("best")
    if summary.get("selected_on") != VALIDATION or not isinstance(best, dict):
        return None
    if "rounds" in best:
        return {int(client): int(number) for client, number in best["rounds"].items()}
    return int(best["round"])


def moment(found: Results) -> str:
    """Say of which round the numbers of finished runs are."""
    chosen = found.runs["selected_on"] == VALIDATION
    return CHOSEN if chosen.all() else MIXED if chosen.any() else LAST


def brief_moment(told: str) -> str:
    """Write it as a remark."""
    return {LAST: "last round", CHOSEN: "best round on validation data"}.get(told, told)


def sentences(found: Results) -> list[str]:
    """Say on which data runs selected, a line for each kind of run."""
    kinds: Counter[tuple[str, ...]] = Counter()
    for run in found.runs.index:
        kinds[_kind(found, int(run))] += 1
    return [
        _sentence(kind, f"{number} of {len(found.runs)} runs: " if len(kinds) > 1 else "")
        for kind, number in kinds.items()
    ]


def _kind(found: Results, run: int) -> tuple[str, ...]:
    """Return on what a run selected, and what."""
    if found.runs.at[run, "selected_on"] == VALIDATION:
        told = (_setting(found, run, key) for key in ("stop.metric", *_HELD_OUT))
        return (VALIDATION, *map(str, told))
    by: Any = found.runs.at[run, "selected_by"]
    if not isinstance(by, list):  # from before a run said so itself
        patience = _setting(found, run, "stop.patience")
        by = [] if patience is None else [f"stop.patience={patience}"]
    folder = found.path(run).resolve()
    above = [folder, *folder.parents[:3]]  # a tuning's trials lie three folders below its own
    tuned = any((place / name).is_file() for place in above for name in TUNED)
    return (TEST, *map(str, by), *(["tuning"] if tuned else []))


_HOLDERS = {"server": "the server", "clients": "clients", "both": "server and clients"}
_HELD_OUT = ("dataset.validation", "dataset.validation_by")


def _setting(found: Results, run: int, key: str) -> Any:
    value = found.settings.at[run, key] if key in found.settings else None
    return None if isinstance(value, float) and value != value else value


def _sentence(kind: tuple[str, ...], who: str) -> str:
    on, *by = kind
    if on == VALIDATION:
        metric, share, holder = by
        return (
            f"{who}Selected on validation data: the round with the best {metric} on held-out examples "
            f"(dataset.validation={share}, held by {_HOLDERS.get(holder, holder)}). Test data had no "
            "part in it."
        )
    if by:
        return (
            f"{who}Selected on test data ({', '.join(by)}): scores are optimistic. "
            "dataset.validation=0.1 selects on held-out examples."
        )
    return f"{who}No round was selected; the best one in summary.json goes by test data."
