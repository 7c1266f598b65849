"""The critical-difference figure: strategies by their average rank over settings (Demsar 2006)."""

from __future__ import annotations

import math
from typing import Any

from fedexp.analysis.comparison import Comparison
from fedexp.analysis.figures.drawing import SMALL, NothingToDraw, View, explain, new
from fedexp.analysis.ranking import ranked
from fedexp.analysis.results import Results


def critical_difference(found: Results, comparison: Comparison | None = None) -> Any:
    """Draw average ranks; a bar joins strategies that the critical difference does not tell apart.

    Args:
        found: What was read from disk.
        comparison: Of the same runs; None compares them with the defaults.

    Returns:
        A matplotlib Figure.

    Raises:
        NothingToDraw: If there are fewer than three federated strategies or settings.
    """
    view = View(found, comparison)
    ranks, judged = ranked(view.comparison), view.goal.metric
    if ranks is None or math.isnan(ranks.critical):
        raise NothingToDraw(
            "fewer than three federated strategies, or settings that all of them ran in"
        )
    ordered = sorted(zip(ranks.ranks, ranks.methods, strict=True))
    bars = _alike([rank for rank, _ in ordered], ranks.critical)
    depth = 1.2 + 0.5 * len(bars) + len(ordered)
    figure = new(7.5, 1.2 + 0.26 * depth)
    axes = figure.add_subplot()
    axes.set(xlim=(0.7, len(ordered) + 0.3), ylim=(-depth, 1.8))
    axes.spines[["left", "right", "bottom"]].set_visible(False)
    axes.spines["top"].set_position(("data", 0))
    axes.xaxis.tick_top()
    axes.set_xticks(range(1, len(ordered) + 1))
    axes.set_yticks([])
    for number, (low, high) in enumerate(bars):
        axes.plot([low - 0.04, high + 0.04], [-0.5 * (number + 1)] * 2, color="black", linewidth=4)
    for number, (rank, method) in enumerate(ordered):
        level = -(0.7 + 0.5 * len(bars) + number)
        axes.plot([rank, rank, 0.7], [0, level, level], color="dimgrey", linewidth=0.8)
        name = f"{' '.join(method)}  {rank:.2f}"
        axes.text(0.68, level, name, ha="right", va="center", fontsize=10)
    axes.plot([1, 1 + ranks.critical], [1.2, 1.2], color="black", linewidth=1.5, marker="|")
    label = f"critical difference {ranks.critical:.2f}"
    axes.text(1, 1.35, label, va="bottom", fontsize=SMALL)
    axes.set_clip_on(False)
    explain(
        figure,
        f"Average rank by {judged} over {len(ranks.settings)} settings, 1 is best; Friedman p "
        f"{ranks.p_value:.3g}. A bar joins strategies that Nemenyi's test at 0.05 does not tell apart",
    )
    return figure


def _alike(ordered: list[float], critical: float) -> list[tuple[float, float]]:
    """Return the longest stretches of ranks that lie within the critical difference."""
    stretches: list[tuple[float, float]] = []
    for number, low in enumerate(ordered):
        high = max(rank for rank in ordered[number:] if rank - low < critical)
        if high > low and not any(high <= end for _, end in stretches):
            stretches.append((low, high))
    return stretches
