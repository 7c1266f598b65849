"""A comparison in words and numbers: for the terminal, Markdown, LaTeX or CSV."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from shlex import quote
from typing import Any, NamedTuple

import pandas as pd

from fedexp.analysis import cells, factors, legend, results
from fedexp.analysis.comparison import Comparison, compare
from fedexp.analysis.grid import FORMATS, Row, written
from fedexp.analysis.measures import GAINS
from fedexp.analysis.owners import OWNER, owner_rows
from fedexp.analysis.personal import verdict
from fedexp.analysis.ranking import ranked
from fedexp.core.commands import command
from fedexp.core.files import SWEEP_FILE

__all__ = ["FORMATS", "Table", "closing_table", "next_step", "render", "tables"]

MAX_CLIENT_ROWS, MAX_GAIN_ROWS = 10, 30
WIDTH = 80
"""Characters of a line where nobody says how wide the terminal is."""

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
}


_PERSONAL_COLUMNS = {
    "own": "own",
    "over_isolated": "over isolated",
    "p_isolated": "p isolated",
    "over_finetune": "over finetune",
    "p_finetune": "p finetune",
    "own_global": "own, global model",
    "own_tuned": "own, tuned",
    "newcomers": "newcomers",
    "newcomers_over": "newcomers over isolated",
}


class Table(NamedTuple):
    """One of the tables of a comparison.

    Attributes:
        heading: What it shows, and over how many runs.
        rows: Heading of a column -> cell. Cells of the first column that start with spaces belong to the
            row above, and a cell that says nothing is empty.
        key_columns: The first so many columns say which row it is.
        legend: What every heading means, a line each.
    """

    heading: str
    rows: list[Row]
    key_columns: int
    legend: list[str]


def tables(found: Comparison) -> list[Table]:
    """Return accuracies, what the clients have of it, tests, ranks, and gains where they are few."""
    over_runs, judged = _over_runs(found), found.goal.metric
    means = " (mean over runs)" * bool(over_runs)
    against = f"compared with {found.baseline or ''} of equal other settings, seed by seed"
    shown = {
        f"{judged.capitalize()} on the test set {found.moment}{over_runs}": _final_rows(found),
        f"Clients: gain over isolated training, and {judged} on their own test examples"
        + over_runs: _client_rows(found),
        f"Every owner on test examples of its own{means}": owner_rows(
            found.own, found.table, found.factors
        ),
        f"{judged.capitalize()} on the clients' own test examples, beside isolated clients and "
        f"fine-tuning{over_runs}": _personal_rows(found),
        f"{judged.capitalize()} {against}": _test_rows(found),
        "Strategies ranked over settings": _rank_rows(found),
    }
    if 0 < len(gains := _gain_rows(found)) <= MAX_GAIN_ROWS:
        shown[f"Gain of every client over isolated training{means}"] = gains
    names = {OWNER, *(factors.title(key) for key in found.factors)}
    counted = {
        heading: sum(name in names for name in rows[0]) for heading, rows in shown.items() if rows
    }
    return [
        Table(heading, shown[heading], keys, legend.lines(shown[heading][0], found))
        for heading, keys in counted.items()
        if len(shown[heading][0]) > keys
    ]


def render(found: Comparison, form: str = "table", width: int = WIDTH) -> str:
    """Write a comparison as text.

    Args:
        found: What :func:`fedexp.analysis.comparison.compare` returned.
        form: ``table``, ``markdown``, ``latex``, or ``csv`` (``found.table`` in full precision).
        width: Characters of a line in the form ``table``: a wider table is broken into several.
    """
    if form == "csv":
        return found.table.to_csv(index=False).rstrip()
    blocks, told = [], set()
    for table in tables(found):
        new = [line for line in table.legend if line not in told]
        told.update(new)
        rows = written(table.rows, form, width, table.key_columns)
        blocks += [_prose(table.heading, form, width), rows, _lines(new, form, width)]
    notes = [*general_notes(found), *(f"note: {note}" for note in found.notes)]
    return "\n\n".join(block for block in (*blocks, _lines(notes, form, width)) if block)


def general_notes(found: Comparison) -> list[str]:
    """Return what is to be known beside the headings."""
    lines = [f"Runs: {found.about}.", *found.selection]
    each = found.gains.groupby("row")["client"].nunique()
    if each.sum() > MAX_GAIN_ROWS or found.dealt_anew & set(each.index):
        lines.append("The gain of every client: fedexp compare FOLDER --clients")
    if found.personal is not None:
        lines += verdict(found.personal)
    ranks = ranked(found)
    if ranks is not None and not math.isnan(ranks.p_value):
        lines.append(
            f"Friedman test over {len(ranks.settings)} settings that all strategies are alike: p "
            f"{cells.p_value(ranks.p_value)}; average ranks {ranks.critical:.2f} apart differ (Nemenyi)."
        )
    return lines


def closing_table(path: Path, width: int = WIDTH, by: Sequence[str] = ()) -> tuple[str, bool]:
    """Compare the runs below a folder, as a multirun does at its end.

    Returns:
        The text, which names every run that did not complete, and whether all completed.
    """
    try:
        found = results.load(path)
    except FileNotFoundError as error:
        return str(error), False
    problems = found.problems()
    goes_on = (path / SWEEP_FILE).is_file() and found.runs["status"].isin(results.STOPPED).any()
    step = next_step("resume" if goes_on else "report", path)
    if not found.completed:
        return "\n".join([*problems, *([step] if goes_on else [])]), False
    return f"{path}\n\n{render(compare(found, by), width=width)}\n\n{step}", not problems


def next_step(step: str, path: Path) -> str:
    """Return the line that a command ends with; only a script's runs need the script to go on."""
    whole = command(step, str(path)) if step == "resume" else f"fedexp {step} {quote(str(path))}"
    return f"next: {whole}"


def _prose(text: str, form: str, width: int) -> str:
    if form == "latex":
        return f"% {text}"
    if form == "markdown":
        return text
    return textwrap.fill(
        text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def _lines(lines: Iterable[str], form: str, width: int) -> str:
    marked = (f"- {line}" if form == "markdown" else line for line in lines)
    return "\n".join(_prose(line, form, width) for line in marked)


def _over_runs(found: Comparison) -> str:
    most = int(found.table["runs"].max())
    spread = " ± 95 % interval" if found.table[f"{found.goal.metric}/ci"].notna().any() else ""
    return f" (mean over runs{spread}; up to {most} runs a row)" if most > 1 else ""


def _keys(row: dict[str, Any], found: Comparison) -> Row:
    return {factors.title(key): factors.shown(row[key]) for key in found.factors}


def _final_rows(found: Comparison) -> list[Row]:
    rows, goal = [], found.goal
    for row in _records(found.table):
        lost = not row["runs"]
        rows.append(
            {
                **_keys(row, found),
                "runs": cells.runs(row),
                goal.metric: "diverged" if lost else cells.number(row, goal.metric, goal),
                "loss": cells.number(row, "loss", goal),
                **{name: cells.number(row, name, goal) for name in found.metrics},
                **{name: cells.plain(row[f"{goal.metric}/{name}"]) for name in found.subsets},
                f"rounds to {found.target:g}": cells.rounds(row),
                "seconds": cells.plain(row["seconds"], ".1f"),
            }
        )
        rows += _isolated_rows(found.isolated[found.isolated["row"] == row["row"]], found)
    return _without_empty(rows)


def _isolated_rows(clients: pd.DataFrame, found: Comparison) -> list[Row]:
    """Return the best of the isolated clients, and each of them where they are few."""
    rows = _records(clients)
    if not rows:
        return []
    judged, sign = found.goal.metric, found.goal.sign
    best = max(rows, key=lambda row: sign * row[judged])
    if pd.isna(best["client"]):
        shown = [("  best client", best)]
    else:
        shown = [(f"  best client ({best['client']})", best)]
    if 1 < len(rows) <= MAX_CLIENT_ROWS:
        shown += [(f"  client {row['client']}", row) for row in rows]
    first = factors.title(found.factors[0])
    return [
        {
            first: name,
            judged: cells.plain(row[judged]),
            **{subset: cells.plain(row[f"{judged}/{subset}"]) for subset in found.subsets},
        }
        for name, row in shown
    ]


def _client_rows(found: Comparison) -> list[Row]:
    rows = []
    for row in _records(found.table):
        line = _keys(row, found)
        for column, heading in _CLIENT_COLUMNS.items():
            line[heading] = cells.number(row, column, found.goal)
        for name in found.metrics:
            line[f"own {name}"] = cells.plain(row[f"client_mean/{name}"])
        if not math.isnan(row["worse_off"]):
            line["worse off"] = f"{round(row['worse_off'], 2):g} of {row['clients']:g}"
        rows.append(line)
    return _without_empty(rows, keys=len(found.factors))


def _personal_rows(found: Comparison) -> list[Row]:
    """Return what clients have on their own examples, where they have models of their own."""
    rows = []
    for row in [] if found.personal is None else _records(found.personal):
        line = _keys(row, found)
        for column, heading in _PERSONAL_COLUMNS.items():
            line[heading] = (
                cells.p_value(row[column])
                if column.startswith("p_")
                else cells.number(row, column, found.goal)
            )
        rows.append({**line, "beats isolated": row["beats"]})
    return _without_empty(rows, keys=len(found.factors)) if rows else []


def _test_rows(found: Comparison) -> list[Row]:
    """Return the rows that were tested."""
    rows = []
    for row in _records(found.table):
        if math.isnan(row["p_value"]):
            continue
        size = cells.plain(row["effect"], "+.2f")
        ends = f" [{row['effect/low']:+.2f}, {row['effect/high']:+.2f}]"
        rows.append(
            {
                **_keys(row, found),
                "seeds": f"{row['p_seeds']:g}",
                "difference": cells.number(row, "p_difference", found.goal),
                "p": cells.p_value(row["p_value"]),
                "Wilcoxon p": cells.p_value(row["p_wilcoxon"]),
                "effect g": size + ends if size and not math.isnan(row["effect/low"]) else size,
                "detectable": cells.plain(row["detectable"]),
            }
        )
    return _without_empty(rows) if rows else []


def _rank_rows(found: Comparison) -> list[Row]:
    ranks = ranked(found)
    if ranks is None:
        return []
    ordered = sorted(zip(ranks.ranks, ranks.methods, strict=True))
    return [
        {
            **{factors.title(key): value for key, value in zip(ranks.keys, method, strict=True)},
            "average rank": f"{rank:.2f}",
        }
        for rank, method in ordered
    ]


def _gain_rows(found: Comparison) -> list[Row]:
    columns = [c for c in (*GAINS, "gain_finetune") if c in found.gains]
    kept = found.gains[~found.gains["row"].isin(found.dealt_anew)]
    if kept.empty:
        return []
    keys = found.table.set_index("row")
    means = kept.groupby(["row", "client"], sort=False)[columns].mean().reset_index()
    return _without_empty(
        {
            **{
                factors.title(key): factors.shown(keys.at[row["row"], key]) for key in found.factors
            },
            "client": str(row["client"]),
            "whole test set": "" if found.isolated.empty else cells.plain(row["gain"], "+.3f"),
            "own examples": cells.plain(row["gain_own"], "+.3f"),
            "unseen labels": cells.plain(row["gain_unseen"], "+.3f"),
            "over finetune": cells.plain(row.get("gain_finetune", math.nan), "+.3f"),
        }
        for row in _records(means)
    )


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def _without_empty(rows: Iterable[Row], keys: int = 1) -> list[Row]:
    """Drop the columns in which no row says anything."""
    rows = list(rows)
    told = [
        heading
        for number, heading in enumerate(rows[0])
        if number < keys or any(row.get(heading) for row in rows)
    ]
    return [{heading: row.get(heading, "") for heading in told} for row in rows]
