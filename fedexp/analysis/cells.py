"""How a number of a comparison is written in a table's cell."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fedexp.analysis.goals import Goal

_SIGNED = ("gain", "to_centralized", "p_difference", "effect", "over_", "newcomers_over")


def is_signed(column: str) -> bool:
    """Say whether a column has differences, which are written with their sign."""
    return column.startswith(_SIGNED)


def number(row: Mapping[str, Any], column: str, goal: Goal) -> str:
    """Write a mean, its interval, and over how many of the row's runs where it is not all of them.

    ``0.901 ± 0.016``; ``0.950 [0.872, 1.000]`` where the interval would leave what is possible;
    ``+0.710 (1 of 3)``. Gains have their sign, and a number that there is not is empty.
    """
    value, half = row[column], row.get(f"{column}/ci", math.nan)
    text = plain(value, "+.3f" if is_signed(column) else ".3f")
    if not text:
        return ""
    if not math.isnan(half):
        text += spread(column, value, half, goal)
    count = row.get(f"{column}/n", row["runs"])
    return text if count in (0, row["runs"]) else f"{text} ({count:g} of {row['runs']})"


def spread(column: str, mean: float, half: float, goal: Goal) -> str:
    """Write what stands behind a mean for its interval."""
    low, high = goal.interval(column, mean, half)
    if low <= mean - half and mean + half <= high:
        return f" ± {half:.3f}"
    return f" [{low:.3f}, {high:.3f}]"


def plain(value: float, form: str = ".3f") -> str:
    """Write a number; one that there is not is empty."""
    return "" if math.isnan(value) else format(value, form)


def p_value(value: float) -> str:
    """Write a p-value: a small one is not nothing, for no test rules chance out."""
    return "< 0.001" if value < 0.001 else plain(value)


def rounds(row: Mapping[str, Any]) -> str:
    """Write the rounds to a target, and how many of the runs reach it where some never do."""
    if not row["reached"]:
        return "never" if row["runs"] else ""
    reached = f" ({row['reached']} of {row['runs']})" if row["reached"] < row["runs"] else ""
    return plain(row["rounds_to_target"], "g") + reached


def runs(row: Mapping[str, Any]) -> str:
    """Write the number of a row's runs, and how many more diverged."""
    return f"{row['runs']}" + (f" ({row['diverged']} diverged)" if row["diverged"] else "")
