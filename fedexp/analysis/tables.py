"""A comparison in words and numbers: for the terminal, Markdown, LaTeX or CSV."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from tabulate import tabulate

from fedexp.analysis import results
from fedexp.analysis.comparison import Comparison, compare

FORMATS = {"table": "simple", "markdown": "github", "latex": "latex_booktabs"}
"""Our name of a format -> tabulate's."""

MAX_CLIENT_ROWS, MAX_GAIN_ROWS = 10, 30
WIDTH = 110

# Column of a comparison -> its heading, where the words need no number.
_CLIENT_COLUMNS = {
    "gain": "gain",
    "gain_best": "over best",
    "gain_own": "own examples",
    "gain_unseen": "unseen labels",
    "worse_off": "worse off",
    "client_mean": "own mean",
    "client_std": "own std",
    "client_worst10": "own worst 10 %",
    "to_centralized": "to centralized",
    "p_value": "p",
}
_SIGNED = ("gain", "to_centralized")


class Table(NamedTuple):
    """One of the tables of a comparison.

    Attributes:
        heading: What it shows, and over how many runs.
        rows: Heading of a column -> cell; "" heads the names of rows. Names that start with spaces
            belong to the row above, and a cell that says nothing is empty.
    """

    heading: str
    rows: list[dict[str, str]]


def tables(found: Comparison) -> list[Table]:
    """Return accuracies, then what the clients gain, then the gain of each client where they are few."""
    over_runs = _over_runs(found)
    shown = [
        Table(f"Accuracy on the test set after the last round{over_runs}", _accuracy_rows(found)),
        Table(
            "Clients: gain over isolated training, and accuracy on their own test examples"
            + over_runs,
            _client_rows(found),
        ),
    ]
    if 0 < len(gains := _gain_rows(found)) <= MAX_GAIN_ROWS:
        shown.append(Table(f"Gain of every client over isolated training{over_runs}", gains))
    return shown


def render(found: Comparison, form: str = "table") -> str:
    """Write a comparison as text.

    Args:
        found: What :func:`fedexp.analysis.comparison.compare` returned.
        form: ``table``, ``markdown``, ``latex``, or ``csv`` (``found.table`` in full precision).
    """
    if form == "csv":
        return found.table.to_csv(index=False).rstrip()
    texts = [f"{_prose(heading, form)}\n{_grid(rows, form)}" for heading, rows in tables(found)]
    notes = [*legend(found), *(f"note: {note}" for note in found.notes)]
    return "\n\n".join(
        [*texts, *(["\n".join(_prose(line, form) for line in notes)] if notes else [])]
    )


def _prose(text: str, form: str) -> str:
    if form == "markdown":
        return f"{text}\n"
    return textwrap.fill(text, WIDTH, subsequent_indent="  ") if form == "table" else f"% {text}"


def closing_table(path: Path) -> tuple[str, bool]:
    """Compare the runs below a folder, as a multirun does at its end.

    Returns:
        The text, which names every run that did not complete, and whether all completed.
    """
    try:
        found = results.load(path)
    except FileNotFoundError as error:
        return str(error), False
    problems = found.problems()
    if not found.completed:
        return "\n".join(problems), False
    return f"{path}\n\n{render(compare(found))}", not problems


def _over_runs(found: Comparison) -> str:
    most = int(found.table["runs"].max())
    return f" (mean over runs ± 95 % interval; up to {most} runs a row)" if most > 1 else ""


def _accuracy_rows(found: Comparison) -> list[dict[str, str]]:
    subsets = [
        c for c in map(str, found.table) if c.startswith("accuracy/") and not c.endswith("/ci")
    ]
    rows = []
    for row in _records(found.table):
        reached = (
            f" ({row['reached']} of {row['runs']})" if 0 < row["reached"] < row["runs"] else ""
        )
        rows.append(
            {
                "": str(row["row"]),
                "runs": str(row["runs"]),
                "accuracy": _number(row, "accuracy"),
                "loss": _number(row, "loss"),
                **{name: _number(row, name) for name in found.metrics},
                **{c.removeprefix("accuracy/"): _plain(row[c]) for c in subsets},
                f"rounds to {found.target:g}": _plain(row["rounds_to_target"], "g") + reached
                if row["reached"]
                else "never",
                "seconds": _plain(row["seconds"], ".1f"),
            }
        )
        rows += _isolated_rows(found.isolated[found.isolated["row"] == row["row"]], subsets)
    return _without_empty(rows)


def _isolated_rows(clients: pd.DataFrame, subsets: list[str]) -> list[dict[str, str]]:
    """Return the best of the isolated clients, and each of them where they are few."""
    rows = _records(clients)
    if not rows:
        return []
    best = max(rows, key=lambda row: row["accuracy"])
    if pd.isna(best["client"]):
        shown = [("  best client of each run", best)]
    else:
        shown = [(f"  best client ({best['client']})", best)]
    if 1 < len(rows) <= MAX_CLIENT_ROWS:
        shown += [(f"  client {row['client']}", row) for row in rows]
    return [
        {
            "": name,
            "accuracy": _plain(row["accuracy"]),
            **{subset.removeprefix("accuracy/"): _plain(row[subset]) for subset in subsets},
        }
        for name, row in shown
    ]


def _client_rows(found: Comparison) -> list[dict[str, str]]:
    rows = []
    for row in _records(found.table):
        cells = {"": str(row["row"])}
        for column, heading in _CLIENT_COLUMNS.items():
            cells[heading] = _number(row, column)
        for name in found.metrics:
            cells[f"own {name}"] = _plain(row[f"client_mean/{name}"])
        if row["p_value"] < 0.001:
            cells["p"] = "< 0.001"  # not 0.000: no test rules chance out
        if row["row"] == found.baseline:
            cells["p"] = "baseline" if found.table["p_value"].notna().any() else ""
        if not math.isnan(row["worse_off"]):
            cells["worse off"] = f"{round(row['worse_off'], 2):g} of {row['clients']:g}"
        rows.append(cells)
    return _without_empty(rows)


def _gain_rows(found: Comparison) -> list[dict[str, str]]:
    columns = ["gain", "gain_own", "gain_unseen"]
    kept = found.gains[~found.gains["row"].isin(found.dealt_anew)]
    if kept.empty:
        return []
    means = kept.groupby(["row", "client"], sort=False)[columns].mean().reset_index()
    return _without_empty(
        {
            "": str(row["row"]),
            "client": str(row["client"]),
            "whole test set": _plain(row["gain"], "+.3f"),
            "own examples": _plain(row["gain_own"], "+.3f"),
            "unseen labels": _plain(row["gain_unseen"], "+.3f"),
        }
        for row in _records(means)
    )


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def legend(found: Comparison) -> list[str]:
    """Return a line for every heading that needs one."""
    lines = []
    if found.table["gain"].notna().any():
        lines.append(
            "gain: accuracy on the whole test set minus that of the isolated client, same seed and "
            "partition, mean over clients; over best: over the best of them; own examples: the same on a "
            "client's share of the test set; unseen labels: on those it holds no training example of; "
            "worse off: clients that lose on their own examples."
        )
    each = found.gains.groupby("row")["client"].nunique()
    if each.sum() > MAX_GAIN_ROWS or found.dealt_anew & set(each.index):
        lines.append("The gain of every client: fedexp compare FOLDER --clients")
    if found.table["p_value"].notna().any():
        lines.append(
            f"p: paired t-test against {found.baseline} over the seeds that both have, Holm-adjusted."
        )
    return lines


def _grid(rows: list[dict[str, str]], form: str) -> str:
    headings = list(rows[0])
    # Digits end in one column; names start in one.
    sides = ["left", *["right"] * (len(headings) - 1)]
    text: str = tabulate(
        [[row.get(heading, "") for heading in headings] for row in rows],
        headers=headings,
        tablefmt=FORMATS[form],
        colalign=sides,
        disable_numparse=True,
        preserve_whitespace=True,
    )
    return text


def _without_empty(rows: Iterable[dict[str, str]]) -> list[dict[str, str]]:
    """Drop the columns in which no row says anything."""
    rows = list(rows)
    told = [heading for heading in rows[0] if heading == "" or any(r.get(heading) for r in rows)]
    return [{heading: row.get(heading, "") for heading in told} for row in rows]


def _number(row: dict[Any, Any], column: str) -> str:
    """Write a mean and its interval; gains with their sign."""
    value, spread = row[column], row.get(f"{column}/ci", math.nan)
    text = _plain(value, "+.3f" if column.startswith(_SIGNED) else ".3f")
    return f"{text} ± {spread:.3f}" if text and not math.isnan(spread) else text


def _plain(value: float, form: str = ".3f") -> str:
    return "" if math.isnan(value) else format(value, form)
