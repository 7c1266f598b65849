"""Compare finished runs: what federated learning gains over isolated clients, client by client."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from fedexp.analysis import results
from fedexp.analysis.pairing import Pairing
from fedexp.analysis.results import FEDERATED, Results
from fedexp.core.statistics import MIN_SEEDS, fairness, half_interval, holm, paired_p_value

BASELINE = "fedavg"
TARGET_SHARE = 0.95
"""The target accuracy, where none is given, as a share of the best federated row's final one."""

GAINS = ("gain", "gain_own", "gain_unseen")
_COLUMNS = {
    *("row", "runs", "seconds", "reached", "rounds_to_target", "to_target", "to_centralized"),
    *("client_mean", "client_std", "client_worst10", "worse_off", "clients", *GAINS, "gain_best"),
    *("p_value", "p_difference", "p_seeds"),
}
"""Columns of a comparison that no metric may take the place of."""

ALONE = ("alone", "alone_own", "alone_unseen")
"""What the isolated client had, in the order of :data:`GAINS`."""


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare` found.

    Attributes:
        table: A row per strategy and varied setting, in the order of the runs: ``row``, ``runs``;
            means over runs ``accuracy``, ``loss``, every other metric of the runs, each of them also as
            ``<metric>/<subset>``, all with ``.../ci`` (half the 95 % interval, NaN for one run);
            ``rounds_to_target`` (median; NaN if no run gets there),
            ``reached`` (runs that do), ``seconds``; ``client_mean``, ``client_std``,
            ``client_worst10`` of the clients' accuracies on their own test examples,
            ``client_mean/<metric>`` of every other metric there; ``gain``,
            ``gain_own``, ``gain_unseen`` with ``.../ci`` (mean over clients, see ``gains``),
            ``gain_best`` (over the best isolated client), ``worse_off`` (clients that lose on
            their own examples) of ``clients`` (that have any), both means over runs;
            ``to_centralized`` with ``.../ci``; ``p_value`` (Holm-adjusted), of the mean
            ``p_difference`` from the baseline over the ``p_seeds`` seeds that both have.
        isolated: A row per isolated client: ``row``, ``client``, means over runs of
            ``accuracy`` and ``accuracy/<subset>``; where the runs of a row have different partitions,
            one for the best client of each run, whose ``client`` is NA.
        gains: A row per run that has isolated clients to be compared with, and client: ``row``, ``run``,
            ``seed``, ``client``; its accuracy minus the isolated client's on the whole test set
            (``gain``), on the client's own test examples (``gain_own``) and on labels that it holds
            no training example of (``gain_unseen``, NaN if none); and what the isolated
            client had: ``alone``, ``alone_own``, ``alone_unseen``.
        dealt_anew: Rows whose runs have different partitions: their client 0 is another one every time,
            and means over runs by client say nothing.
        labels: Row of every run that was compared.
        pairs: Run -> the run of isolated clients that it is compared with, where there is one.
        target: The accuracy that ``rounds_to_target`` is about.
        baseline: The row that ``p_value`` tests against; None if there is none.
        notes: What a reader must know: runs that did not complete or were left out, pairs that are
            missing, rounds that differ.
    """

    table: pd.DataFrame
    isolated: pd.DataFrame
    gains: pd.DataFrame
    dealt_anew: set[str]
    labels: pd.Series
    pairs: dict[int, int]
    target: float
    baseline: str | None
    notes: list[str]

    @property
    def metrics(self) -> list[str]:
        """The metrics beside accuracy and loss that the table has."""
        prefix = "client_mean/"
        return [c.removeprefix(prefix) for c in map(str, self.table) if c.startswith(prefix)]


def compare(
    found: Results,
    by: Sequence[str] = (),
    target: float | None = None,
    baseline: str = BASELINE,
) -> Comparison:
    """Compare completed runs.

    Args:
        found: What :func:`fedexp.analysis.results.load` returned.
        by: Options that tell rows apart, such as ``strategy`` or ``partition.alpha``; none stands for the
            strategy and every setting that varies, less the seed.
        target: Accuracy on the whole test set for ``rounds_to_target``, in (0, 1]; None is 95 % of the
            best federated row's, rounded down to two decimals.
        baseline: Name of the row that the others are tested against, seed by seed.

    Raises:
        ValueError: If no run completed, or ``by`` names an option that the runs do not have.
    """
    if not found.completed:
        raise ValueError("no run completed, so there is nothing to compare")
    pairing = Pairing(found, by)
    labels = pairing.labels
    figures = _figures(found.select(labels.index))
    if figures["accuracy"].isna().all():
        raise ValueError("no completed run has an accuracy on the test set")
    if target is None:
        federated = labels[found.runs["kind"].loc[labels.index] == FEDERATED]
        shown = federated if len(federated) else labels
        best = figures["accuracy"].loc[shown.index].groupby(shown).mean().max()
        target = max(0.01, math.floor(100 * TARGET_SHARE * best) / 100)
    figures["to_target"] = _rounds_to(found, target)
    gains = _gains(found, pairing)
    rows = [
        _row(name, figures[labels == name], gains, pairing, figures) for name in labels.unique()
    ]
    table = pd.DataFrame(rows)
    base = baseline if baseline in set(labels) else None
    tests = _paired_tests(list(table["row"]), figures["accuracy"], pairing, base)
    table = table.assign(**tests)
    notes = [*found.problems(), *pairing.notes]
    if base is None and len(table) > 1 and table["runs"].max() >= MIN_SEEDS:
        notes.append(f"no row is called {baseline}: --baseline ROW says what p is tested against")
    partitions = found.runs["partition_sha256"].loc[labels.index].groupby(labels).nunique()
    anew = set(partitions.index[partitions > 1])
    return Comparison(
        table=table,
        isolated=_isolated(found, labels, anew),
        gains=gains,
        dealt_anew=anew,
        labels=labels,
        pairs=pairing.isolated,
        target=target,
        baseline=base,
        notes=notes,
    )


def _figures(found: Results) -> pd.DataFrame:
    """Return a row per run: accuracy, loss, ``accuracy/<subset>``, seconds, client_mean, ..."""
    runs = found.runs.index
    tested = found.finals[
        (found.finals["split"] == "test") & ~found.finals["metric"].isin(_COLUMNS)
    ]
    # The mean over local models where there is no global one.
    means = tested.groupby(["run", "subset", "metric"], observed=True)["value"].mean()
    wide: Any = means.unstack(["metric", "subset"]).reindex(runs)
    wide.columns = [metric if subset == "all" else f"{metric}/{subset}" for metric, subset in wide]
    own = found.finals[
        (found.finals["split"] == "client_test") & found.finals["client"].notna()
    ].set_index("run")
    accuracies = own.loc[own["metric"] == "accuracy", "value"].groupby(level="run")
    served = pd.DataFrame({run: fairness(values) for run, values in accuracies}).T
    for name in ("mean", "std", "worst10"):
        wide[f"client_{name}"] = served.get(name, math.nan)
    for name in _others(found):
        values = own.loc[own["metric"] == name, "value"]
        wide[f"client_mean/{name}"] = values.groupby(level="run").mean()
    for name in ("accuracy", "loss"):
        wide[name] = wide.get(name, math.nan)
    wide["seconds"] = pd.to_numeric(found.runs["seconds"])
    figures: pd.DataFrame = wide
    return figures


def _others(found: Results) -> list[str]:
    """Return the metrics beside accuracy and loss that can have a column."""
    return [name for name in found.metrics if name not in _COLUMNS]


def _rounds_to(found: Results, target: float) -> pd.Series:
    """Return, by run, the first round whose accuracy on the whole test set is at least the target."""
    curves = found.curves
    there = curves[
        (curves["split"] == "test")
        & (curves["subset"] == "all")
        & (curves["metric"] == "accuracy")
        & (curves["value"] >= target)
    ]
    return there.groupby("run")["round"].min()


def _isolated(found: Results, labels: pd.Series, dealt_anew: set[str]) -> pd.DataFrame:
    """Return the accuracies of isolated clients, means over the runs of a row.

    Where seeds deal the examples anew, client 0 is another one every time: each run's best client stands
    for all.
    """
    alone = found.finals[
        (found.finals["model"] == "local")
        & (found.finals["split"] == "test")
        & (found.finals["metric"] == "accuracy")
        & found.finals["run"].isin(labels.index)
    ]
    if alone.empty:
        return pd.DataFrame({"row": [], "client": [], "accuracy": []})
    wide: Any = alone.set_index(["run", "client", "subset"])["value"].unstack("subset")
    wide.columns = ["accuracy" if name == "all" else f"accuracy/{name}" for name in wide]
    wide = wide.reset_index()
    wide.insert(0, "row", wide["run"].map(labels))
    several = wide["row"].isin(dealt_anew)
    best = wide[several].sort_values("accuracy").drop_duplicates("run", keep="last")
    best = best.assign(client=pd.NA)
    together = pd.concat([wide[~several], best]).drop(columns="run")
    means = together.groupby(["row", "client"], dropna=False, observed=True, sort=False).mean()
    frame: pd.DataFrame = means.reset_index()
    return frame.astype({"client": "Int32"})


def _gains(found: Results, pairing: Pairing) -> pd.DataFrame:
    measured = {split: _by_client(found, split) for split in ("test", "client_test")}

    @cache  # an isolated run is compared with every strategy
    def accuracies(run: int) -> npt.NDArray[np.float64]:
        whole, own = (clients[run] for clients in measured.values())
        return _accuracies(whole, own, found.path(run))

    columns = ["row", "run", "seed", "client", *GAINS, *ALONE]
    frames = [pd.DataFrame(columns=columns)]
    for run, alone in pairing.isolated.items():
        had = accuracies(alone)
        numbers = np.hstack([accuracies(run) - had, had])
        frame = pd.DataFrame(numbers, columns=[*GAINS, *ALONE])
        who = {"row": pairing.labels[run], "run": run, "seed": found.runs["seed"][run]}
        frames.append(frame.assign(**who, client=range(len(had))))
    return pd.concat(frames[1:] or frames, ignore_index=True)[columns]


def _by_client(found: Results, split: str) -> dict[int, dict[int | None, float]]:
    """Return run -> client, or None for the global model -> final accuracy."""
    finals = found.finals
    chosen = finals[
        (finals["metric"] == "accuracy") & (finals["subset"] == "all") & (finals["split"] == split)
    ]
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
        model = None if None in matrices else client
        rows.append(
            (
                whole.get(model, math.nan),
                own.get(client, math.nan),
                _unseen(matrices[model], held),
            )
        )
    return np.array(rows)


def _unseen(matrix: Any, held: Any) -> float:
    """Return the accuracy on test examples of labels of which no training example is held."""
    unseen = held == 0
    total = matrix[unseen].sum()
    return float(matrix.diagonal()[unseen].sum() / total) if total else math.nan


def _row(
    name: str, mine: pd.DataFrame, gains: pd.DataFrame, pairing: Pairing, figures: pd.DataFrame
) -> dict[str, Any]:
    row: dict[str, Any] = {"row": name, "runs": len(mine)}
    prefix = "client_mean/"
    others = [c.removeprefix(prefix) for c in map(str, mine) if c.startswith(prefix)]
    of_metrics = {"accuracy", "loss", *others}
    measured = [c for c in map(str, mine) if c.partition("/")[0] in of_metrics]
    for column in dict.fromkeys(("accuracy", "loss", *measured)):
        row |= _mean(column, mine[column])
    for column in (c for c in map(str, mine) if c.startswith("client_mean/")):
        row[column] = mine[column].mean()
    reached = mine["to_target"].dropna()
    row |= {"rounds_to_target": reached.median(), "reached": len(reached)}
    for column in ("seconds", "client_mean", "client_std", "client_worst10"):
        row[column] = mine[column].mean()
    own = gains[gains["row"] == name]
    for column in GAINS:
        row |= _mean(column, own.groupby("run")[column].mean().dropna())
    row["gain_best"] = own.groupby("run")["gain"].min().mean()
    judged = own.dropna(subset=["gain_own"])
    worse = (judged["gain_own"] < 0).groupby(judged["run"]).sum()
    row |= {"worse_off": worse.mean(), "clients": judged.groupby("run").size().mean()}
    central = [run for run in mine.index if run in pairing.centralized]
    base = figures["accuracy"].loc[[pairing.centralized[run] for run in central]]
    return row | _mean("to_centralized", mine["accuracy"].loc[central] - base.to_numpy())


def _mean(name: str, values: pd.Series) -> dict[str, float]:
    numbers = [float(value) for value in values]
    mean = float(np.mean(numbers)) if numbers else math.nan
    return {name: mean, f"{name}/ci": half_interval(numbers)}


def _paired_tests(
    rows: list[str], accuracy: pd.Series, pairing: Pairing, baseline: str | None
) -> dict[str, list[float]]:
    """Test every row against the baseline over the seeds that both have on the same partition.

    A row that averages over settings has several runs of a seed, which are no further seeds: it is
    not tested.
    """
    seeds = pairing.seeds()

    def by_draws(name: str | None) -> dict[Any, float]:
        runs = pairing.labels.index[pairing.labels == name]
        if seeds.loc[runs].duplicated().any():
            return {}
        return {pairing.draws(run): float(accuracy[run]) for run in runs}

    base = by_draws(baseline)
    differences = []
    for name in rows:
        mine = by_draws(name) if name != baseline else {}
        pairs = [mine[key] - base[key] for key in mine if key in base]
        differences.append(pairs if len(pairs) >= MIN_SEEDS else [])
    return {
        "p_value": holm([paired_p_value(pairs) for pairs in differences]),
        "p_difference": [float(np.mean(pairs)) if pairs else math.nan for pairs in differences],
        "p_seeds": [len(pairs) or math.nan for pairs in differences],
    }
