"""Figures of the clients: what each gains over training alone, and who holds what."""

from __future__ import annotations

import math
import textwrap
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import seaborn

from fedexp.analysis import results
from fedexp.analysis.comparison import Comparison
from fedexp.analysis.factors import factors, title, varied_settings
from fedexp.analysis.figures.drawing import (
    COLOURS,
    HATCHES,
    SMALL,
    WARNING,
    NothingToDraw,
    View,
    explain,
    label_names,
    legend_above,
    new,
    panels,
    tidy,
    wrapped,
)
from fedexp.analysis.results import Results
from fedexp.analysis.rows import client_gains
from fedexp.core.pictures import draw_partition
from fedexp.core.statistics import half_interval

MAX_GAIN_PANELS, MAX_PARTITIONS = 6, 4

MAX_GROUPED = 12
"""Clients up to which every measure of gain has a bar."""

MAX_CLIENTS = 100
"""Clients in a partition."""

Matrix = npt.NDArray[np.int64]


class _Partition(NamedTuple):
    """Who holds what, under the settings that tell it from others.

    Attributes:
        title: Those settings.
        counts: Examples by client and label, of the clients that the run lists.
        classes: What labels are called.
        group: What a label is.
        num_clients: How many clients there are in all.
    """

    title: str
    counts: Matrix
    classes: list[str]
    group: str
    num_clients: int


def gain_bars(found: Results, comparison: Comparison | None = None) -> Any:
    """Draw every client's gain over training alone, a panel per federated row.

    Up to 12 clients have a bar for the whole test set, their own examples and unseen labels; more of them
    have one for their own examples, from the largest gain to the largest loss.

    Args:
        found: What was read from disk.
        comparison: Of the same runs; None compares them with the defaults.

    Returns:
        A matplotlib Figure.

    Raises:
        NothingToDraw: If no federated run is compared with isolated clients.
    """
    view = View(found, comparison)
    gains = view.comparison.gains
    rows = [row for row in view.federated if (gains["row"] == row).any()]
    if not rows:
        raise NothingToDraw("no federated run is compared with isolated clients (local_only)")
    shown = view.best(rows, MAX_GAIN_PANELS)
    columns = min(3, len(shown))
    figure = new(max(6.5, 3.6 * columns), 3.1 * math.ceil(len(shown) / columns) + 1.0)
    few = gains["client"].nunique() <= MAX_GROUPED
    axes = panels(figure, len(shown), columns, sharey=True)
    for panel, row in zip(axes, shown, strict=True):
        mine = client_gains(view.comparison, row)
        (_grouped_bars if few else _sorted_bars)(panel, mine)
        panel.axhline(0, color="black", linewidth=0.8)
        tidy(panel)
        panel.set_title(wrapped(row), fontsize=10)
    judged = view.goal.metric
    what = judged if few else f"{judged} on own test examples"
    order = "federated − isolated" if view.goal.sign > 0 else "isolated − federated"
    figure.supylabel(f"{what},\n{order}", fontsize=10)
    legend_above(figure, axes)
    anew = view.comparison.dealt_anew
    bars = ["Bars are means over runs"] if view.most_runs() > 1 and not anew >= set(shown) else []
    if few and bars:
        _frame_bars(axes)
        bars = ["Bars are means over runs, lines their 95 % intervals, which may leave the frame"]
    explain(
        figure,
        "Above 0 the client is better off than isolated (same seed and partition)",
        *bars,
        "Where every seed deals other examples to a client, bars are of the first seed only"
        if anew & set(shown)
        else "",
        f"{len(shown)} of {len(rows)} federated rows are shown: the "
        f"{'most accurate' if view.goal.has_labels else 'best'}"
        if len(shown) < len(rows)
        else "",
    )
    return figure


def partitions(found: Results, comparison: Comparison | None = None) -> Any:
    """Draw who holds what, for one seed and a panel per partition.

    Args:
        found: What was read from disk.
        comparison: Of the same runs; None compares them with the defaults.

    Returns:
        A matplotlib Figure.
    """
    view = View(found, comparison)
    distinct = _partitions(view)
    shown = distinct[:MAX_PARTITIONS]
    most = max(len(partition.counts) for partition in shown)
    wide = float(np.clip(3.0 + 0.3 * most, 4.5, 9.0))
    figure = new(wide + 1.8, 2.9 * len(shown) + 0.8)
    axes = panels(figure, len(shown), 1)
    for panel, (heading, counts, classes, _, num_clients) in zip(axes, shown, strict=True):
        draw_partition(panel, counts[:MAX_CLIENTS], classes, _label_colours(len(classes)))
        if num_clients > len(counts):
            panel.set_xticks([])  # their numbers are not 0, 1, 2
            panel.set_xlabel(f"{len(counts[:MAX_CLIENTS])} of {num_clients:,} clients")
        for number, bars in enumerate(panel.collections):
            bars.set(hatch=HATCHES[number % 3], edgecolor="white", linewidth=0.5)
        tidy(panel)
        panel.set_title(textwrap.fill(heading, int(14 * wide)), fontsize=10)
    group = shown[0].group
    if not group:
        pass  # bars are of one colour
    elif all(partition.classes == shown[0].classes for partition in shown):
        _name_labels(figure, axes[0], 26, title=group, loc="outside right upper")
    else:  # a colour is another label in another panel
        for panel in axes:
            where = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)}
            _name_labels(panel, panel, 12, title=group, **where)
    explain(
        figure,
        _which_seeds(view),
        f"The first {MAX_CLIENTS} of {most} clients are shown" if most > MAX_CLIENTS else "",
        "Of many clients, some drawn at random are shown"
        if any(partition.num_clients > len(partition.counts) for partition in shown)
        else "",
        f"{len(shown)} of {len(distinct)} partitions are shown"
        if len(shown) < len(distinct)
        else "",
    )
    return figure


def _name_labels(place: Any, axes: Any, most: int, **where: Any) -> None:
    """Name the labels of one panel in a figure's or its own legend, so many of them in a column."""
    handles, names = axes.get_legend_handles_labels()
    few = len(names) <= 26
    place.legend(
        *(handles[::-1], names[::-1]),  # from top to bottom, as the bars are stacked
        **{"frameon": False, "fontsize": SMALL if few else 5, **where},
        ncols=math.ceil(len(names) / (most if few else 26)),
    )


def _grouped_bars(axes: Any, gains: pd.DataFrame) -> None:
    """Draw three bars a client; a measure that no client has is left out."""
    measures = {
        "gain": "whole test set",
        "gain_own": "own test examples",
        "gain_unseen": "labels never seen",
    }
    for number, (column, name) in enumerate(measures.items()):
        by_client = gains.groupby("client")[column]
        mean = by_client.mean()
        if mean.isna().all():
            continue
        spread = [half_interval(values.dropna().tolist()) for _, values in by_client]
        axes.bar(
            np.arange(len(mean)) + (number - 1) * 0.27,
            mean,
            width=0.27,
            yerr=None if np.isnan(spread).all() else spread,
            label=name,
            color=COLOURS[number],
            hatch=HATCHES[number],
            edgecolor="white",
            error_kw={"linewidth": 1},
        )
    axes.set_xticks(range(len(mean)), mean.index)
    axes.set_xlabel("client")


def _sorted_bars(axes: Any, gains: pd.DataFrame) -> None:
    """Draw a bar a client, in the order of their gains."""
    own = gains.groupby("client")["gain_own"].mean().dropna().sort_values(ascending=False)
    places, worse = np.arange(len(own)), own.to_numpy() < 0
    kinds = {"better off or equal": (~worse, COLOURS[0], ""), "worse off": (worse, WARNING, "///")}
    for name, (chosen, colour, hatch) in kinds.items():
        if chosen.any():
            style = {"color": colour, "hatch": hatch, "edgecolor": "white", "linewidth": 0}
            axes.bar(places[chosen], own[chosen], width=1.0, label=name, **style)
    axes.set_xlabel(f"clients in the order of their gain:\n{worse.sum()} of {len(own)} worse off")


def _frame_bars(axes: list[Any]) -> None:
    """Frame the bars, not their intervals: that of two runs is so wide that bars would be flat in it."""
    heights = [bar.get_height() for panel in axes for bar in panel.patches]
    low, high = min(0.0, np.nanmin(heights)), max(0.0, np.nanmax(heights))
    margin = 0.15 * (high - low) or 0.05
    axes[0].set_ylim(low - margin, high + margin)  # the axes share it


def _partitions(view: View) -> list[_Partition]:
    """Return who holds what in runs of the first seed, each partition once."""
    runs, settings = view.found.runs, view.found.settings
    about = ("partition.", "clients.", "dataset.")
    named = factors(view.found, varied_settings(view.found)).keys
    keys = [key for key in named if key.startswith(about)]
    distinct: dict[Any, _Partition] = {}
    for run in map(int, runs.index[runs["seed"] == runs["seed"].iloc[0]]):
        dataset = [str(settings.at[run, key]) for key in keys if key.startswith("dataset.")]
        # The hash is of the examples' numbers only, which equally large datasets share.
        which = (runs.at[run, "partition_sha256"], *dataset)
        if which in distinct:
            continue
        content = results.partition(view.found.path(run))
        counts = np.array(content["class_counts"])
        values = {key: str(settings.at[run, key]) for key in keys}
        told = " ".join(f"{title(key)}={value}" for key, value in values.items())
        num_clients = content.get("num_clients", len(counts))
        heading = told or f"{content.get('partition', 'partition')}: {num_clients} clients"
        names = label_names(content, counts.shape[1])
        group = content.get("groups", "label")
        distinct[which] = _Partition(heading, counts, names, group, num_clients)
    return list(distinct.values())


def _which_seeds(view: View) -> str:
    """Say which seed is shown, and whether the others have the same partitions."""
    runs = view.found.runs
    first = runs["seed"] == runs["seed"].iloc[0]
    others, shown = (set(runs.loc[which, "partition_sha256"]) for which in (~first, first))
    rest = "deal other examples" if others - shown else "deal the same examples"
    return f"Seed {runs['seed'].iloc[0]}" + (f"; other seeds {rest}" if others else "")


def _label_colours(number: int) -> list[Any]:
    name = "colorblind" if number <= 10 else "viridis"
    return list(seaborn.color_palette(name, number))
