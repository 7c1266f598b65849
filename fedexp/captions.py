"""What each figure of a report shows, in a sentence: for who cannot see it, or is in a hurry."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from fedexp import results
from fedexp.results import Results
from fedexp.rows import Rows, brief

MAX_NAMED = 6
"""Rows that a sentence names."""


def caption(name: str, found: Results, rows: Rows) -> str:
    """Return what a figure of :func:`fedexp.figures.every` finds; empty for one not known here."""
    say = _CAPTIONS.get(name)
    return say(found, rows) if say else ""


def _confusion(found: Results, rows: Rows) -> str:
    if not rows.paired:
        best = (rows.federated or rows.isolated or rows.centralized)[0]
        return f"{brief(best)} names {rows.number(best, 'accuracy').number()} of the test images right."
    row = rows.paired[0]
    if not rows.has(row, "gain_unseen"):
        return f"Every client holds images of every label; {_alone_and_together(rows, row)}."
    alone, together = _unseen(rows, row)
    return (
        f"Frames mark labels that a client never saw: trained alone it names {alone} of their images "
        f"right, the federated model ({brief(row)}) {together}."
    )


def _unseen(rows: Rows, row: str) -> tuple[str, str]:
    together = rows.together(row, "alone_unseen", "gain_unseen")
    return rows.alone(row, "alone_unseen").number(), together.number()


def _alone_and_together(rows: Rows, row: str) -> str:
    alone, together = rows.alone(row).number(), rows.together(row).number()
    return f"alone {alone} of the test images are named right, with {brief(row)} {together}"


def _curves(found: Results, rows: Rows) -> str:
    table = rows.table["accuracy"].dropna().sort_values(ascending=False)
    told = _named(f"{brief(row)} {value:.3f}" for row, value in table.items())
    return f"Accuracy after the last round: {told}."


def _gains(found: Results, rows: Rows) -> str:
    row = rows.paired[0]
    gains = rows.comparison.gains
    by_client: Any = gains[gains["row"] == row].groupby("client")["gain"].mean()
    low, high = by_client.idxmin(), by_client.idxmax()
    return (
        f"On the whole test set {brief(row)} brings from {by_client[low]:+.3f} (client {low}) "
        f"to {by_client[high]:+.3f} (client {high})."
    )


def _labels(found: Results, rows: Rows) -> str:
    row = rows.paired[0]
    if not rows.has(row, "gain_unseen"):
        return f"Every client holds images of every label; {_alone_and_together(rows, row)}."
    alone, together = _unseen(rows, row)
    return f"On labels that a client never saw: {alone} alone, {together} with {brief(row)}."


def _subsets(found: Results, rows: Rows) -> str:
    row = (rows.federated or rows.centralized or rows.isolated)[0]
    names = [
        column
        for column in map(str, rows.table)
        if column.startswith("accuracy/") and "/ci" not in column
    ]
    told = [column for column in names if rows.has(row, column)]
    parts = (
        f"{rows.number(row, column).number()} on {column.removeprefix('accuracy/')}"
        for column in told
    )
    return f"{brief(row)} ends at {_named(parts)}."


def _target(found: Results, rows: Rows) -> str:
    """Say when each row reaches the target; both figures of costs are about that."""
    target = rows.comparison.target
    there = rows.table["rounds_to_target"].dropna().sort_values()
    never = [brief(row) for row in rows.table.index if row not in there.index]
    reached = _named(f"{brief(row)} after {number:g}" for row, number in there.items())
    if there.empty:
        return f"No row reaches accuracy {target:g}."
    rest = f" Never: {_named(never)}." if never else ""
    return f"Rounds to accuracy {target:g}: {reached}.{rest}"


def _partitions(found: Results, rows: Rows) -> str:
    runs = rows.comparison.labels.index
    first = next(run for run in runs if (found.path(run) / "partition.json").is_file())
    counts = np.array(results.partition(found.path(first))["class_counts"])
    images, held = counts.sum(axis=1), (counts > 0).sum(axis=1)
    return (
        f"{len(counts)} clients in {found.runs['name'][first]} hold {_range(images)} images each, "
        f"of {_range(held)} of {counts.shape[1]} labels."
    )


def _range(numbers: npt.NDArray[np.int64]) -> str:
    low, high = int(numbers.min()), int(numbers.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _named(words: Iterable[str]) -> str:
    words = list(words)
    rest = [f"and {len(words) - MAX_NAMED} more"] if len(words) > MAX_NAMED else []
    return ", ".join([*words[:MAX_NAMED], *rest])


_CAPTIONS: dict[str, Callable[[Results, Rows], str]] = {
    "confusion_matrices": _confusion,
    "learning_curves": _curves,
    "gain_bars": _gains,
    "class_accuracies": _labels,
    "subset_curves": _subsets,
    "accuracy_against_time": _target,
    "accuracy_against_bytes": _target,
    "partitions": _partitions,
}
