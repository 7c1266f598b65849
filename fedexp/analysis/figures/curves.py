"""Figures of accuracy, or what else runs are judged by, over rounds, seconds and bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.ticker import LogLocator, NullFormatter

from fedexp.analysis import results
from fedexp.analysis.comparison import Comparison
from fedexp.analysis.figures.drawing import (
    NothingToDraw,
    View,
    explain,
    is_narrow,
    legend,
    new,
    outer,
    panels,
    tidy,
    whole_rounds,
    wrapped,
)
from fedexp.analysis.figures.isolated import draw_single_clients, single_clients
from fedexp.analysis.figures.series import of_row, tested
from fedexp.analysis.results import Results
from fedexp.core.statistics import MIN_SEEDS, half_interval

MAX_SUBSETS = 6
"""Panels of subset curves."""

MAX_BANDS = 8
"""Rows up to which intervals are drawn; more of them cover each other."""

MAX_MARKERS = 12
"""Markers on a line."""

_EARLY = "A run that stopped early keeps its last value"


def learning_curves(found: Results, comparison: Comparison | None = None) -> Any:
    """Draw accuracy, loss and the runs' other metrics on the whole test set over rounds.

    Lines are means over a row's runs, bands the 95 % interval of that mean (Student's t); a row of one
    run has no band.

    Args:
        found: What was read from disk.
        comparison: Of the same runs; None compares them with the defaults.

    Returns:
        A matplotlib Figure.

    Raises:
        NothingToDraw: If no run has a curve.
    """
    view = View(found, comparison)
    measured = [view.goal.metric, "loss", *view.found.metrics]
    beside = len(view.settings)
    if beside == 1:
        figure = new(11.0, max(_height(view), 3.6 * math.ceil(len(measured) / 2)))
        grid = [[axes] for axes in panels(figure, len(measured), 2)]
    else:
        figure = new(2.6 + 3.1 * beside, max(_height(view), 0.8 + 2.7 * len(measured)))
        together = panels(figure, beside * len(measured), beside, sharex=True)
        grid = [together[k * beside : (k + 1) * beside] for k in range(len(measured))]
    for name, row in zip(measured, grid, strict=True):
        values = tested(view, name, "all")
        for axes, (setting, rows) in zip(row, view.settings.items(), strict=True):
            _lines(axes, view, values, rows)
            tidy(axes, xlabel="round", title=setting if row is grid[0] or is_narrow() else "")
            axes.title.set_fontsize(10)
            whole_rounds(axes)
        label = _frame_metric(name, row, view)
        for axes in outer(row, len(row)):
            axes.set_ylabel(label)
    legend(figure, *grid[0])
    explain(figure, _what_lines_are(view), *view.notes)
    return figure


def _frame_metric(name: str, row: Sequence[Any], view: View) -> str:
    """Give the panels of a metric the same limits, and return what their axis is called."""
    label = view.goal.axes.get(name, f"{name} on all test examples")
    low, high = view.goal.limits(name)
    # What has no end may be so large for isolated clients that all others lie on one line.
    log = name in view.goal.axes and low >= 0 and math.isinf(high) and _log_scale(*row)
    if not log:
        _frame(*row)
    if log and label.endswith(")"):
        return f"{label.removesuffix(')')}, log scale)"
    return f"{label} (log scale)" if log else label


def subset_curves(found: Results, comparison: Comparison | None = None) -> Any:
    """Draw accuracy over rounds, a panel per named subset of the test labels and setting.

    Args and Returns: as :func:`learning_curves`.

    Raises:
        NothingToDraw: If the runs have no subsets.
    """
    view = View(found, comparison)
    curves = view.found.curves
    subsets = [name for name in curves["subset"].unique() if name != "all"]
    if not subsets:
        raise NothingToDraw("the runs name no subsets of the test labels")
    shown, several = subsets[:MAX_SUBSETS], len(view.settings) > 1
    values = {subset: tested(view, view.goal.metric, subset) for subset in shown}
    single = {row: clients for row in view.rows if len(clients := single_clients(view, row))}
    places = [
        (subset, setting, rows)
        for subset in shown
        for setting, rows in view.settings.items()
        if any(run in values[subset] for row in rows for run in view.runs(row))
    ]
    columns = (
        len(view.settings) if len(places) == len(shown) * len(view.settings) > len(shown) else 3
    )
    tall = math.ceil(len(places) / columns)
    figure = new(2.6 + 3.1 * min(columns, len(places)), max(_height(view), 0.8 + 2.9 * tall))
    together = panels(figure, len(places), columns, sharex=True, sharey=True)
    whole = f"{view.goal.metric} (share of examples)" if view.goal.has_labels else view.goal.metric
    for axes, (subset, setting, rows) in zip(together, places, strict=True):
        _lines(axes, view, values[subset], rows if several else None)
        for row in [row for row in rows if row in single]:
            draw_single_clients(axes, single[row], subset)
        title = f"{setting}\nlabels {subset}" if several else f"test examples of labels {subset}"
        tidy(
            axes,
            xlabel="round",
            ylabel=whole if axes in outer(together, columns) else "",
            title=title,
        )
        axes.title.set_fontsize(10)
    _frame(*together)
    whole_rounds(together[0])
    legend(figure, *together)
    left_out = f"{len(shown)} of {len(subsets)} subsets are shown" if shown != subsets else ""
    zero = "A single isolated client that never saw these labels stays at 0" if single else ""
    told = _what_lines_are(view, () if several else view.rows)
    explain(figure, told, zero, left_out, *view.notes)
    return figure


def accuracy_against_time(found: Results, comparison: Comparison | None = None) -> Any:
    """Draw accuracy on the whole test set against seconds since a run's start (timings.csv).

    Args and Returns: as :func:`learning_curves`.

    Raises:
        NothingToDraw: If no run has timings.
    """
    view = View(found, comparison)
    figure, together = _against(view, _seconds(view), "timings.csv")
    for axes in together:
        tidy(axes, xlabel="seconds since the run's start")
        axes.set_xlim(left=0)
    legend(figure, *together)
    explain(
        figure,
        f"Both numbers are means over a row's runs, round by round. {_EARLY}",
        "Seconds include start-up and evaluation, and depend on the machine and what else it did",
        *view.notes,
    )
    return figure


def accuracy_against_bytes(found: Results, comparison: Comparison | None = None) -> Any:
    """Draw accuracy on the whole test set against the bytes of weights sent, both ways, so far.

    Rows that send nothing, as isolated clients do, are a horizontal line at their final accuracy.

    Args and Returns: as :func:`learning_curves`.

    Raises:
        NothingToDraw: If no run says what it sent.
    """
    view = View(found, comparison)
    sent = _sent(view)
    unit, divisor = _unit(float(sent.max().max()) if len(sent) else 0.0)
    silent = [row for row in view.rows if not set(view.runs(row)) & set(sent)]
    figure, together = _against(view, sent / divisor, "metrics of bytes sent")
    for axes, rows in zip(together, view.settings.values(), strict=True):
        for row in (row for row in rows if row in silent):
            style = view.style(row, by_name=True)
            axes.axhline(
                view.goal.sign * view.merit()[row], label=view.name(row), clip_on=False, **style
            )
    xlabel = f"weights sent to and by clients so far ({unit})"
    for axes in together:
        tidy(axes, xlabel=xlabel)
    legend(figure, *together)
    explain(
        figure,
        f"Both numbers are means over a row's runs, round by round. {_EARLY}",
        f"Rows that send no weights are a horizontal line at their final {view.goal.metric}"
        if silent
        else "",
        *view.notes,
    )
    return figure


def _lines(axes: Any, view: View, values: pd.DataFrame, rows: Sequence[str] | None = None) -> None:
    """Draw a line per row; of the rows of one setting, under their names within it."""
    shown = view.rows if rows is None else rows
    low, high = view.goal.limits(str(values.attrs["metric"]))
    for row in shown:
        mine = of_row(values, view.runs(row))
        if mine.empty:
            continue
        mean = mine.mean(axis=1)
        style = view.style(row, by_name=rows is not None)
        name = row if rows is None else view.name(row)
        axes.plot(mean.index, mean, label=name, **style, **_marks(len(mean)))
        if mine.shape[1] > 1 and len(shown) <= MAX_BANDS:
            half = mine.apply(lambda numbers: half_interval(numbers.dropna().tolist()), axis=1)
            band = {"color": style["color"], "alpha": 0.15, "linewidth": 0}
            ends = (mean - half).clip(lower=low), (mean + half).clip(upper=high)
            axes.fill_between(mean.index, *ends, **band)


def _marks(points: int) -> dict[str, Any]:
    return {"markersize": 6, "markevery": max(1, math.ceil(points / MAX_MARKERS)), "linewidth": 1.5}


def _frame(*together: Any) -> None:
    """Frame the lines, not the bands: that of two runs is so wide that lines would be flat in it."""
    low, high = _range(together)
    margin = 0.08 * (high - low) or 0.05
    for axes in together:
        # A share of variance that is far below 0 at first would press all that follows together.
        least = max(low - margin, -margin / 4) if high > 0 else low - margin
        axes.set_ylim(least, high + margin)


def _range(together: Sequence[Any]) -> tuple[float, float]:
    numbers = [y for axes in together for line in axes.lines for y in line.get_ydata()]
    finite = [y for y in numbers if math.isfinite(y)]  # a diverged client's loss need not be
    return min(finite, default=0.0), max(finite, default=1.0)


def _log_scale(*together: Any) -> bool:
    """Make axes logarithmic where isolated clients' numbers dwarf the others'; say whether they are."""
    low, high = _range(together)
    if high <= 10 * low or low <= 0:
        return False
    for axes in together:
        axes.set_yscale("log")
        axes.set_ylim(low / 1.3, high * 1.3)
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    return True


def _against(view: View, x_values: pd.DataFrame, what: str) -> tuple[Any, list[Any]]:
    """Draw accuracy against something, a panel per setting."""
    scores = tested(view, view.goal.metric, "all")
    beside = len(view.settings)
    columns = min(3, beside)
    size = (8.0, _height(view))
    if beside > 1:
        size = (2.6 + 3.4 * columns, max(_height(view), 0.8 + 3.0 * math.ceil(beside / columns)))
    figure = new(*size)
    together = panels(figure, beside, columns, sharex=beside > 1, sharey=beside > 1)
    for axes, (setting, rows) in zip(together, view.settings.items(), strict=True):
        axes.set_title(setting, fontsize=10)
        for row in rows:
            runs = [run for run in view.runs(row) if run in x_values and run in scores]
            if runs:
                x, y = (of_row(values, runs).mean(axis=1) for values in (x_values, scores))
                both = pd.DataFrame({"x": x, "y": y}).dropna()
                style = {**view.style(row, by_name=True), **_marks(len(both))}
                axes.plot(both["x"], both["y"], label=view.name(row), **style)
    if not any(axes.lines for axes in together):
        raise NothingToDraw(f"no run has {what}")
    for axes in outer(together, columns):
        axes.set_ylabel(view.goal.axes.get(view.goal.metric, view.goal.metric))
    return figure, together


def _seconds(view: View) -> pd.DataFrame:
    """Return seconds since the start by round and run, of every run that has them."""
    series = {}
    for row in view.rows:
        for run in view.runs(row):
            try:
                series[run] = results.seconds(view.found.path(run))
            except FileNotFoundError:
                continue
    return pd.DataFrame(series).sort_index()


def _sent(view: View) -> pd.DataFrame:
    """Return bytes sent so far by round and run; none before the first round."""
    curves = view.found.curves
    chosen = curves[curves["metric"].isin(["bytes_up", "bytes_down"])]
    each = chosen.pivot_table(index="round", columns="run", values="value", aggfunc="sum")
    return pd.concat([pd.DataFrame(0.0, index=[0], columns=each.columns), each]).fillna(0).cumsum()


def _unit(largest: float) -> tuple[str, float]:
    for unit, divisor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if largest >= divisor:
            return unit, divisor
    return "bytes", 1.0


def _what_lines_are(view: View, rows: Sequence[str] = ()) -> str:
    """Say what lines and bands are, with so many rows in a panel."""
    most = len(rows) or max(map(len, view.settings.values()))
    if view.most_runs() == 1:
        return "One run a row, so there are no intervals"
    if most > MAX_BANDS:
        return (
            f"Lines are means over a row's runs; of more than {MAX_BANDS} rows no intervals are drawn. "
            f"{_EARLY}"
        )
    if view.most_runs() < MIN_SEEDS:
        return f"Lines are means over two runs, which are too few for intervals. {_EARLY}"
    return (
        "Lines are means over a row's runs, bands the 95 % interval of the mean (Student's t), which may "
        f"leave the frame; a row of fewer than three runs has none. {_EARLY}"
    )


def _height(view: View) -> float:
    """Return a height in inches at which the names of all rows have room."""
    lines = sum(wrapped(row).count("\n") + 1 for row in view.rows)
    return max(4.4, 1.2 + (0.22 if len(view.rows) <= 10 else 0.18) * lines)
