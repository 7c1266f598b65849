"""One metric as a paper has it: strategies down, a second factor across, the best in bold."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from fedexp.analysis import cells, factors
from fedexp.analysis.comparison import Comparison
from fedexp.analysis.grid import BOLD, Row, latex_text, written
from fedexp.analysis.results import FEDERATED
from fedexp.core.statistics import LEVEL

SPREADS = {
    "interval": "half of the 95 % interval of the mean (Student's t)",
    "deviation": "the standard deviation over runs",
    "error": "the standard error of the mean",
    "none": "",
}
"""What may stand behind a mean."""

DIFFERS = "†"


@dataclass(frozen=True)
class Pivot:
    """A table of one metric.

    Attributes:
        caption: What it shows.
        rows: Heading -> cell; the best of a column stands between ``**``.
        key_columns: The first so many columns say which row it is.
        frame: The numbers in full precision: means, ``<column>/ci`` and ``<column>/n``.
    """

    caption: str
    rows: list[Row]
    key_columns: int
    frame: pd.DataFrame

    def render(self, form: str, width: int) -> str:
        """Write it as ``table``, ``markdown``, ``latex`` or ``csv``."""
        if form == "csv":
            return self.frame.to_csv(index=False).rstrip()
        if form != "latex":
            rows = self.rows
            caption = self.caption
            if form == "table":  # a star, which is narrower
                rows = [{k: _starred(cell) for k, cell in row.items()} for row in rows]
                caption = textwrap.fill(
                    caption, width, break_long_words=False, break_on_hyphens=False
                )
            return f"{caption}\n\n{written(rows, form, width, self.key_columns)}"
        tabular = written(self.rows, form, width, self.key_columns)
        return (
            "% needs \\usepackage{booktabs}\n\\begin{table}\n\\centering\n"
            f"\\caption{{{latex_text(self.caption)}}}\n{tabular}\n\\end{{table}}"
        )


def pivot(
    found: Comparison,
    rows: Sequence[str],
    columns: Sequence[str],
    metric: str | None = None,
    spread: str = "interval",
) -> Pivot:
    """Return one metric by two factors.

    Args:
        found: Compared by these factors alone: a comparison's row is a cell here.
        rows: Factors that go down, such as ``strategy``.
        columns: Factors that go across, such as ``partition.alpha``; none makes one column.
        metric: A column of the comparison's table with a number; None is what runs are judged by.
        spread: What stands behind a mean: a key of :data:`SPREADS`.

    Raises:
        ValueError: If the table has no such number.
    """
    table: Any = found.table
    prefix, metric = f"{found.goal.metric}/", metric or found.goal.metric
    numbers = [
        str(name)
        for name in table.drop(columns=found.factors).select_dtypes("number")
        if "/" not in str(name) or str(name).removeprefix(prefix) in found.subsets
    ]
    if metric not in numbers:
        raise ValueError(f"--metric {metric}: must be one of {', '.join(numbers)}")
    across = table[list(columns)].drop_duplicates() if columns else pd.DataFrame([{}])
    across = across.sort_values(list(columns)) if columns and _sortable(across) else across
    names = {tuple(line): _heading(columns, line, metric) for line in across.to_numpy().tolist()}
    lines: dict[tuple[str, ...], dict[str, Any]] = {}
    for record in table.to_dict("records"):
        key = tuple(factors.shown(record[name]) for name in rows)
        lines.setdefault(key, {})[names[tuple(record[name] for name in columns)]] = record
    headings = list(names.values())
    texts = {
        key: {name: _cell(of[name], metric, spread, found) for name in headings if name in of}
        for key, of in lines.items()
    }
    for name in headings:
        _embolden(name, lines, texts, metric, found.goal.larger_is_better(metric))
    titles = [factors.title(key) for key in rows]
    return Pivot(
        _caption(found, metric, spread, columns, texts),
        [
            {
                **dict(zip(titles, key, strict=True)),
                **{name: texts[key].get(name, "") for name in headings},
            }
            for key in lines
        ],
        len(rows),
        _frame(titles, headings, lines, metric),
    )


def _sortable(across: pd.DataFrame) -> bool:
    return all(pd.api.types.is_numeric_dtype(across[name].infer_objects()) for name in across)


def _heading(columns: Sequence[str], values: Sequence[Any], metric: str) -> str:
    """Return what a column is headed by: ``alpha=0.1``, or a choice alone."""
    words = [
        factors.shown(value)
        if factors.title(key) != key or key == factors.STRATEGY
        else f"{key.rpartition('.')[2]}={factors.shown(value)}"
        for key, value in zip(columns, values, strict=True)
    ]
    return ", ".join(words) or metric


def _count(record: dict[str, Any], metric: str) -> int:
    return int(record.get(f"{metric}/n", record["runs"]))


def _cell(record: dict[str, Any], metric: str, spread: str, found: Comparison) -> str:
    if not record["runs"]:
        return "diverged"
    if metric == "rounds_to_target":
        return cells.rounds(record)
    value, half = record[metric], record.get(f"{metric}/ci", math.nan)
    signed = cells.is_signed(metric)
    text = cells.plain(value, "+.3f" if signed else ".3f")
    if text and spread == "interval" and not math.isnan(half):
        text += cells.spread(metric, value, half, found.goal)
    elif text and spread != "none" and not math.isnan(half):
        text += f" ± {_of_interval(half, _count(record, metric), spread):.3f}"
    if text and _count(record, metric) < found.table["runs"].max():
        text += f" (n={_count(record, metric)})"
    tested = metric == found.goal.metric and record["p_value"] < LEVEL
    return text + DIFFERS if tested else text


def _of_interval(half: float, number: int, spread: str) -> float:
    """Return the standard error or deviation that an interval was made of."""
    from scipy.stats import t

    error = half / float(t.ppf(0.975, number - 1))
    return error if spread == "error" else error * math.sqrt(number)


def _embolden(
    name: str,
    lines: dict[tuple[str, ...], dict[str, Any]],
    texts: dict[tuple[str, ...], dict[str, str]],
    metric: str,
    larger_is_better: bool,
) -> None:
    """Mark the best federated cell of a column, and those that are written alike."""
    column = "rounds_censored" if metric == "rounds_to_target" else metric
    sign = 1 if larger_is_better else -1
    found = {
        key: sign * of[name][column]
        for key, of in lines.items()
        if name in of and of[name]["kind"] == FEDERATED and math.isfinite(of[name][column])
    }
    if len(found) < 2:
        return
    best = max(found.values())
    for key, value in found.items():
        if round(value, 3) == round(best, 3):
            texts[key][name] = f"{BOLD}{texts[key][name]}{BOLD}"


def _starred(cell: str) -> str:
    return f"*{cell.replace(BOLD, '')}" if cell.startswith(BOLD) else cell


def _caption(
    found: Comparison,
    metric: str,
    spread: str,
    columns: Sequence[str],
    texts: dict[tuple[str, ...], dict[str, str]],
) -> str:
    written_cells = [text for of in texts.values() for text in of.values()]
    what = metric.replace("_", " ").capitalize()
    by = f" by {' and '.join(map(factors.title, columns))}" if columns else ""
    parts = [f"{what}{by}: means over up to {int(found.table['runs'].max())} runs"]
    if any("±" in text or "[" in text for text in written_cells):
        parts[0] += f", behind ± {SPREADS[spread]}"
    if any(text.startswith(BOLD) for text in written_cells):
        parts.append("The best federated strategy of every column is marked")
    if any(DIFFERS in text for text in written_cells):
        parts.append(
            f"{DIFFERS}: differs from {found.baseline} in the same column (paired t-test over seeds, "
            f"Holm-adjusted p < {LEVEL:g})"
        )
    parts.append(f"Runs: {found.about}")
    return ". ".join(parts) + ". " + " ".join(found.selection)


def _frame(
    titles: Sequence[str],
    headings: Sequence[str],
    lines: dict[tuple[str, ...], dict[str, Any]],
    metric: str,
) -> pd.DataFrame:
    records = []
    for key, of in lines.items():
        record: dict[str, Any] = dict(zip(titles, key, strict=True))
        for name in headings:
            if name in of:
                record[name] = of[name][metric]
                record[f"{name}/ci"] = of[name].get(f"{metric}/ci", math.nan)
                record[f"{name}/n"] = _count(of[name], metric)
        records.append(record)
    return pd.DataFrame(records)
