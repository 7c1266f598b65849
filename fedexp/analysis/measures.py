"""What every run measured, and what its clients gain over isolated ones."""

from __future__ import annotations

import math
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from fedexp.analysis import results
from fedexp.analysis.pairing import Pairing
from fedexp.analysis.results import Results
from fedexp.core.statistics import fairness

GAINS = ("gain", "gain_own", "gain_unseen")

CLIENT_TEST, NEWCOMER_TEST = "client_test", "newcomer_test"
"""A client's own test examples; those of one that took part in no round of training."""

ALONE = ("alone", "alone_own", "alone_unseen")
"""What the isolated client had, in the order of :data:`GAINS`."""

COLUMNS = {
    *("row", "runs", "seconds", "reached", "rounds_to_target", "to_target", "to_centralized"),
    *("client_mean", "client_std", "client_worst10", "worse_off", "clients", *GAINS, "gain_best"),
    *("p_value", "p_wilcoxon", "p_difference", "p_seeds", "effect", "detectable", "baseline"),
    *("strategy", "kind", "diverged", "rounds_censored", "gain_finetune"),
}
"""Columns of a comparison that no metric may take the place of."""


def by_run(found: Results) -> pd.DataFrame:
    """Return a row per run: accuracy, loss, ``accuracy/<subset>``, seconds, client_mean, ...

    In accuracy's place stands what else the runs are judged by; so in the functions below.
    """
    runs, goal = found.runs.index, found.goal
    tested = found.finals[(found.finals["split"] == "test") & ~found.finals["metric"].isin(COLUMNS)]
    # The mean over local models where there is no global one.
    means = tested.groupby(["run", "subset", "metric"], observed=True)["value"].mean()
    wide: Any = means.unstack(["metric", "subset"]).reindex(runs)
    wide.columns = [metric if subset == "all" else f"{metric}/{subset}" for metric, subset in wide]
    own = of_tested_models(found).set_index("run")
    judged = own.loc[own["metric"] == goal.metric, "value"].groupby(level="run")
    turned = {"higher_is_better": goal.sign > 0}
    served = pd.DataFrame({run: fairness(values, **turned) for run, values in judged}).T
    for name in ("mean", "std", "worst10"):
        wide[f"client_{name}"] = served.get(name, math.nan)
    for name in others(found):
        values = own.loc[own["metric"] == name, "value"]
        wide[f"client_mean/{name}"] = values.groupby(level="run").mean()
    for name in (goal.metric, "loss"):
        wide[name] = wide.get(name, math.nan)
    wide["seconds"] = pd.to_numeric(found.runs["seconds"])
    figures: pd.DataFrame = wide
    return figures


def of_tested_models(found: Results, split: str = CLIENT_TEST) -> pd.DataFrame:
    """Return the clients' last numbers on their own examples, each of the model it is tested with.

    That is the client's own model where it has one, and else the global one.
    """
    mine = found.finals[(found.finals["split"] == split) & found.finals["client"].notna()]
    local = mine["model"] == "local"
    has_own = mine["run"].isin(mine.loc[local, "run"].unique())
    return mine[local | (~has_own & (mine["model"] == "global"))]


def others(found: Results) -> list[str]:
    """Return the metrics beside that which runs are judged by and the loss that can have a column."""
    return [name for name in found.metrics if name not in COLUMNS]


def rounds_to(found: Results, target: float) -> pd.Series:
    """Return, by run, the first round whose accuracy on the whole test set is the target or better."""
    curves, goal = found.curves, found.goal
    there = curves[
        (curves["split"] == "test")
        & (curves["subset"] == "all")
        & (curves["metric"] == goal.metric)
        & (goal.sign * curves["value"] >= goal.sign * target)
    ]
    return there.groupby("run")["round"].min()


def isolated(found: Results, labels: pd.Series, dealt_anew: set[str]) -> pd.DataFrame:
    """Return the accuracies of isolated clients, means over the runs of a row.

    Where seeds deal the examples anew, client 0 is another one every time: each run's best client stands
    for all.
    """
    goal = found.goal
    alone = found.finals[
        (found.finals["model"] == "local")
        & (found.finals["split"] == "test")
        & found.finals["client"].notna()  # where clients are on nodes, only their mean is known
        & (found.finals["metric"] == goal.metric)
        & found.finals["run"].isin(labels.index)
        & (found.finals["run"].map(found.runs["kind"]) == results.ISOLATED)
    ]
    if alone.empty:
        return pd.DataFrame({"row": [], "client": [], goal.metric: []})
    wide: Any = alone.set_index(["run", "client", "subset"])["value"].unstack("subset")
    wide.columns = [goal.metric if name == "all" else f"{goal.metric}/{name}" for name in wide]
    wide = wide.reset_index()
    wide.insert(0, "row", wide["run"].map(labels))
    several = wide["row"].isin(dealt_anew)
    ordered = wide[several].sort_values(goal.metric, ascending=goal.sign > 0)
    best = ordered.drop_duplicates("run", keep="last")
    best = best.assign(client=pd.NA)
    together = pd.concat([wide[~several], best]).drop(columns="run")
    means = together.groupby(["row", "client"], dropna=False, observed=True, sort=False).mean()
    frame: pd.DataFrame = means.reset_index()
    return frame.astype({"client": "Int32"})


def tested_apart(found: Results, alone: pd.DataFrame) -> list[str]:
    """Return a note where no isolated client was tested on the examples of others."""
    if not alone.empty or not (found.runs["kind"] == results.ISOLATED).any():
        return []
    return [
        "isolated clients were tested on nobody's examples but their own: what stands for them on the "
        "whole test set is their mean, by examples"
    ]


def gains(found: Results, pairing: Pairing) -> pd.DataFrame:
    """Return what every client gains over isolated training; see ``Comparison.gains``."""
    whole = found.finals[found.finals["split"] == "test"]
    measured = [_by_client(found, frame) for frame in (whole, of_tested_models(found))]

    @cache  # an isolated run is compared with every strategy
    def accuracies(run: int) -> npt.NDArray[np.float64]:
        whole, own = (clients[run] for clients in measured)
        return _accuracies(whole, own, found.path(run))

    columns = ["row", "run", "seed", "client", *GAINS, *ALONE]
    frames = [pd.DataFrame(columns=columns)]
    for run, alone in pairing.isolated.items():
        had = accuracies(alone)
        numbers = np.hstack([found.goal.sign * (accuracies(run) - had), had])
        frame = pd.DataFrame(numbers, columns=[*GAINS, *ALONE])
        who = {"row": pairing.labels[run], "run": run, "seed": found.runs["seed"][run]}
        frames.append(frame.assign(**who, client=range(len(had))))
    return pd.concat(frames[1:] or frames, ignore_index=True)[columns]


def _by_client(found: Results, finals: pd.DataFrame) -> dict[int, dict[int | None, float]]:
    """Return run -> client, or None for the global model -> final accuracy."""
    chosen = finals[(finals["metric"] == found.goal.metric) & (finals["subset"] == "all")]
    of_run: dict[int, dict[int | None, float]] = defaultdict(dict)
    clients = chosen["client"].astype(object).tolist()
    for run, client, value in zip(chosen["run"], clients, chosen["value"], strict=True):
        of_run[run][None if client is pd.NA else client] = value
    return of_run


def _accuracies(
    whole: dict[int | None, float], own: dict[int | None, float], folder: Path
) -> npt.NDArray[np.float64]:
    """Return a client a row: accuracy on the whole test set, on its own examples, on unseen labels."""
    matrices = results.confusion(folder)
    rows = []
    for client, held in enumerate(np.array(results.partition(folder)["class_counts"])):
        model = None if None in whole else client
        rows.append(
            (
                whole.get(model, math.nan),
                own.get(client, math.nan),
                _unseen(matrices[model], held) if model in matrices else math.nan,
            )
        )
    return np.array(rows)


def _unseen(matrix: Any, held: Any) -> float:
    """Return the accuracy on test examples of labels of which no training example is held."""
    unseen = held == 0
    total = matrix[unseen].sum()
    return float(matrix.diagonal()[unseen].sum() / total) if total else math.nan
