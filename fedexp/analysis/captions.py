"""What each figure of a report shows, in a sentence: for who cannot see it, or is in a hurry."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from fedexp.analysis import results
from fedexp.analysis.figures import labels as figures_labels
from fedexp.analysis.figures.clients import MAX_GROUPED
from fedexp.analysis.ranking import ranked
from fedexp.analysis.results import Results
from fedexp.analysis.rows import Rows, brief, client_gains

MAX_NAMED = 6
"""Rows that a sentence names."""


def caption(name: str, found: Results, rows: Rows) -> str:
    """Return what a figure of the report finds; empty for one not known here."""
    say = _target if "_against_" in name else _CAPTIONS.get(name)
    return say(found, rows) if say else ""


def _confusion(found: Results, rows: Rows) -> str:
    row, framed = figures_labels.shown(found, rows.comparison)
    if row not in rows.paired:
        right = rows.final(row).number()
        return f"{brief(row)} names {right} of the test examples right{_over(rows, row)}."
    over, unseen = _over(rows, row, paired=True), rows.has(row, "gain_unseen")
    if framed and unseen:
        alone, together = _unseen(rows, row)
        return (
            f"Frames mark labels that a client never saw. Of their examples, an isolated client "
            f"names {alone} right, the federated model ({brief(row)}) {together}{over}."
        )
    who = "Every client shown" if unseen else "Every client"
    return f"{who} holds examples of every label; {_alone_and_together(rows, row)}{over}."


def _over(rows: Rows, row: str, *, paired: bool = False) -> str:
    """Say what a number beside a figure of one seed is a mean over."""
    runs = rows.runs(row, paired=paired)
    return f", mean over {rows.over(runs)}" if len(runs) > 1 else ""


def _unseen(rows: Rows, row: str) -> tuple[str, str]:
    together = rows.together(row, "alone_unseen", "gain_unseen")
    return rows.alone(row, "alone_unseen").number(), together.number()


def _alone_and_together(rows: Rows, row: str) -> str:
    alone, together = rows.alone(row).number(), rows.together(row).number()
    return f"isolated clients name {alone} of the test examples right, {brief(row)} {together}"


def _curves(found: Results, rows: Rows) -> str:
    judged = rows.goal.metric
    table = rows.table[judged].dropna().sort_values(ascending=rows.goal.sign < 0)
    told = _named(f"{brief(row)} {value:.3f}" for row, value in table.items())
    return f"{judged.capitalize()} {rows.comparison.moment}: {told}."


def _gains(found: Results, rows: Rows) -> str:
    row = rows.paired[0]
    gains = rows.comparison.gains
    few = gains["client"].nunique() <= MAX_GROUPED  # of more, the figure shows own examples only
    column, where = ("gain", "the whole test set") if few else ("gain_own", "own test examples")
    mine = client_gains(rows.comparison, row)
    by_client: Any = rows.goal.sign * mine.groupby("client")[column].mean().dropna()
    if by_client.empty:
        return f"No client of {brief(row)} has test examples of its own."
    low, high = by_client.idxmin(), by_client.idxmax()
    return (
        f"On {where} {brief(row)} changes a client's {rows.goal.metric} by {by_client[low]:+.3f} "
        f"(client {low}) to {by_client[high]:+.3f} (client {high})"
        f"{', first seed only' if row in rows.comparison.dealt_anew else ''}."
    )


def _labels(found: Results, rows: Rows) -> str:
    row = rows.paired[0]
    over = _over(rows, row, paired=True)
    if not rows.has(row, "gain_unseen"):
        return (
            f"Every client holds examples of every label; {_alone_and_together(rows, row)}{over}."
        )
    alone, together = _unseen(rows, row)
    return (
        f"On labels that a client never saw: {alone} isolated, {together} with {brief(row)}{over}."
    )


def _subsets(found: Results, rows: Rows) -> str:
    prefix, scores = f"{rows.goal.metric}/", rows.table[rows.goal.metric]
    names = [f"{prefix}{name}" for name in rows.comparison.subsets]
    best = scores.sort_values(ascending=rows.goal.sign < 0, kind="stable").index
    ordered = [
        r for kind in (rows.federated, rows.centralized, rows.isolated) for r in best if r in kind
    ]
    row = next((r for r in ordered if any(rows.has(r, column) for column in names)), None)
    if row is None:
        return ""
    told = [column for column in names if rows.has(row, column)]
    parts = (
        f"{rows.number(row, column).number()} on {column.removeprefix(prefix)}" for column in told
    )
    return f"{brief(row)} ends at {_named(parts)}."


def _target(found: Results, rows: Rows) -> str:
    """Say when each row reaches the target; both figures of costs are about that."""
    target = rows.comparison.target
    table = rows.table
    ranked = table.sort_values(["rounds_censored", "rounds_to_target"], kind="stable")
    there = ranked["rounds_to_target"].dropna()
    part = [row for row in there.index if table.at[row, "reached"] < table.at[row, "runs"]]
    never = [brief(row) for row in rows.table.index if row not in there.index]
    parts = {row: f" ({table.at[row, 'reached']} of {table.at[row, 'runs']} runs)" for row in part}
    reached = _named(
        f"{brief(row)} after {there[row]:g}{parts.get(row, '')}" for row in there.index
    )
    if there.empty:
        return f"No row reaches {rows.goal.metric} {target:g}."
    rest = f" Never: {_named(never)}." if never else ""
    return f"Rounds to {rows.goal.metric} {target:g}: {reached}.{rest}"


def _ranks(found: Results, rows: Rows) -> str:
    ranks = ranked(rows.comparison)
    if ranks is None:
        return ""
    ordered = sorted(zip(ranks.ranks, ranks.methods, strict=True))
    told = _named(f"{' '.join(method)} {rank:.2f}" for rank, method in ordered)
    return f"Average ranks over {len(ranks.settings)} settings, 1 is best: {told}."


def _partitions(found: Results, rows: Rows) -> str:
    runs = rows.comparison.labels.index
    first = next(run for run in runs if (found.path(run) / "partition.json").is_file())
    content = results.partition(found.path(first))
    counts, group = np.array(content["class_counts"]), content.get("groups", "label")
    sizes, held = counts.sum(axis=1), (counts > 0).sum(axis=1)
    who, of_all = f"{len(counts)} clients", content.get("num_clients", len(counts))
    if of_all > len(counts):
        who = f"{len(counts)} of {of_all:,} clients, drawn at random,"
    return f"{who} in {found.runs['name'][first]} hold {_range(sizes)} examples each" + (
        f", of {_range(held)} of {counts.shape[1]} {group}s." if group else "."
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
    "critical_difference": _ranks,
    "partitions": _partitions,
}
