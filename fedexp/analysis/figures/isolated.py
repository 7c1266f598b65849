"""Lines of single isolated clients: a mean hides the one that never saw a label."""

from __future__ import annotations

from typing import Any

import pandas as pd

from fedexp.analysis import results
from fedexp.analysis.figures.drawing import View
from fedexp.analysis.results import ISOLATED

MAX_SINGLE = 10
"""Isolated clients that have a line each."""


def single_clients(view: View, row: str) -> pd.DataFrame:
    """Return accuracies of a row's isolated clients: subset, round, client, value, means over runs.

    Empty where there are many clients, or where each run has other ones.
    """
    columns = ["subset", "round", "client"]
    if view.kind(row) != ISOLATED or row in view.comparison.dealt_anew:
        return pd.DataFrame(columns=[*columns, "value"])
    tables = [results.metrics(view.found.path(run)) for run in view.runs(row)]
    every = pd.concat(tables).query("model == 'local' and split == 'test'")
    whole = every[every["metric"] == view.goal.metric]
    if whole["client"].nunique() > MAX_SINGLE:
        return pd.DataFrame(columns=[*columns, "value"])
    means: pd.DataFrame = whole.groupby(columns, observed=True)["value"].mean().reset_index()
    return means


def draw_single_clients(axes: Any, clients: pd.DataFrame, subset: str) -> None:
    """Draw a thin line per client."""
    for number, (_, line) in enumerate(clients[clients["subset"] == subset].groupby("client")):
        label = "single isolated clients" if number == 0 else f"_client {number}"
        style = {"color": "black", "linewidth": 0.8, "alpha": 0.6, "label": label}
        axes.plot(line["round"], line["value"], marker=".", **style)
