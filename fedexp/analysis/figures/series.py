"""What figures over rounds draw: numbers by round and run."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from fedexp.analysis.figures.drawing import NothingToDraw, View


def tested(view: View, metric: str, subset: str) -> pd.DataFrame:
    """Return a metric on the test set by round and run."""
    curves = view.found.curves
    chosen = curves[
        (curves["split"] == "test") & (curves["subset"] == subset) & (curves["metric"] == metric)
    ]
    if chosen.empty:
        raise NothingToDraw(f"no run has the {metric} on the test set")
    table = chosen.pivot_table(index="round", columns="run", values="value")
    table.attrs["metric"] = metric
    return table


def of_row(values: pd.DataFrame, runs: Sequence[int]) -> pd.DataFrame:
    """Return a row's runs by round, as far as the longest goes; others keep their last value."""
    mine = values[[run for run in runs if run in values]].dropna(how="all")
    ended = mine.bfill().isna()
    return mine.fillna(mine.ffill().where(ended))
