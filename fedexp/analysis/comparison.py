"""Compare finished runs: what federated learning gains over isolated clients, client by client."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from fedexp.analysis import measures
from fedexp.analysis.factors import value
from fedexp.analysis.measures import GAINS
from fedexp.analysis.paired import paired_tests
from fedexp.analysis.pairing import Pairing
from fedexp.analysis.provenance import about
from fedexp.analysis.ranges import interval
from fedexp.analysis.results import FEDERATED, Results
from fedexp.core.statistics import half_interval

BASELINE = "fedavg"
TARGET_SHARE = 0.95
"""The target accuracy, where none is given, as a share of the best federated row's final one."""


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare` found.

    Attributes:
        table: A row per strategy and varied setting, in the order of the runs: ``row`` (its name), a
            column per factor (``strategy``, ``partition.alpha``), ``kind`` (``federated``, ``isolated``,
            ``centralized``, or ``mixed``), ``runs``, ``diverged`` (runs that did,
            and are in no number);
            means over runs ``accuracy``, ``loss``, every other metric of the runs, each of them also as
            ``<metric>/<subset>``, all with ``.../ci`` (half the 95 % interval, Student's t; NaN for fewer
            than three runs), ``.../low`` and ``.../high`` (its ends, as far as values are possible), and
            ``.../n`` where fewer runs have the number than the row has runs;
            ``rounds_to_target`` (median of the runs that get there; NaN if none does),
            ``reached`` (runs that do), ``rounds_censored`` (median of all runs, infinite where half of
            them do not get there), ``seconds``; ``client_mean``, ``client_std``,
            ``client_worst10`` of the clients' accuracies on their own test examples,
            ``client_mean/<metric>`` of every other metric there; ``gain``,
            ``gain_own``, ``gain_unseen`` with ``.../ci`` (mean over clients, see ``gains``),
            ``gain_best`` (over the best isolated client), ``worse_off`` (clients that lose on
            their own examples) of ``clients`` (that have any), both means over runs;
            ``to_centralized`` with ``.../ci``; ``baseline``, the row of equal other settings that it is
            tested against; ``p_value`` of the paired t-test (Holm-adjusted over the table), of the mean
            ``p_difference`` with ``.../ci`` from the baseline over the ``p_seeds`` seeds that both have;
            ``p_wilcoxon`` of the signed-rank test from six seeds on; ``effect`` (Hedges' g) with
            ``.../low`` and ``.../high``; ``detectable``, the difference that so few seeds would find in
            four of five experiments.
        factors: The options that tell rows apart, each a column of the three frames.
        isolated: A row per isolated client: ``row``, factors, ``client``, means over runs
            of ``accuracy`` and ``accuracy/<subset>``; where the runs of a row have different partitions,
            one for the best client of each run, whose ``client`` is NA.
        gains: A row per run that has isolated clients to be compared with, and client: ``row``, factors,
            ``run``, ``seed``, ``client``; its accuracy minus the isolated client's on the whole test set
            (``gain``), on the client's own test examples (``gain_own``) and on labels that it holds no
            training example of (``gain_unseen``, NaN if none); and what the isolated client had:
            ``alone``, ``alone_own``, ``alone_unseen``.
        dealt_anew: Rows whose runs have different partitions: their client 0 is another one every time,
            and means over runs by client say nothing.
        labels: Row of every run that was compared.
        pairs: Run -> the run of isolated clients that it is compared with, where there is one.
        target: The accuracy that ``rounds_to_target`` is about.
        baseline: The strategy, or the row, that ``p_value`` tests against; None if there is none.
        about: Dataset, partition, seeds and date of the runs, in a line.
        notes: What a reader must know: runs that did not complete or were left out, pairs that are
            missing, rounds that differ.
    """

    table: pd.DataFrame
    factors: list[str]
    isolated: pd.DataFrame
    gains: pd.DataFrame
    dealt_anew: set[str]
    labels: pd.Series
    pairs: dict[int, int]
    target: float
    baseline: str | None
    about: str
    notes: list[str]

    def _shown(self) -> pd.DataFrame:
        wanted = ["runs", "accuracy", "accuracy/ci", "loss", "gain", "gain_own", "p_value"]
        shown = [name for name in wanted if self.table[name].notna().any()]
        return self.table[[*self.factors, *shown]].round(3)

    def __repr__(self) -> str:
        """Show the main numbers, as notebooks do; all frames together are no reading."""
        return repr(self._shown())

    def _repr_html_(self) -> str:
        """Show the main numbers where a notebook ends a cell with a comparison."""
        html: str = self._shown().to_html(index=False, na_rep="")
        return html

    @property
    def subsets(self) -> list[str]:
        """The subsets of labels, such as ``1-3-7``, whose accuracy the table has."""
        columns = [c for c in map(str, self.table) if c.startswith("accuracy/")]
        names = [column.removeprefix("accuracy/") for column in columns]
        return [
            name for name in names if name not in ("ci", "low", "high", "n") and "/" not in name
        ]

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
        baseline: The strategy that others are tested against, seed by seed and within equal other
            settings; or the name of one row.

    Raises:
        ValueError: If no run completed, or ``by`` names an option that the runs do not have.
    """
    if not found.completed:
        words = ["no run completed, so there is nothing to compare", *found.problems()[:3]]
        raise ValueError("; ".join(words))
    pairing = Pairing(found, by)
    labels = pairing.labels
    figures = measures.by_run(found.select(labels.index))
    if figures["accuracy"].isna().all():
        raise ValueError("no completed run has an accuracy on the test set")
    if target is None:
        federated = labels[found.runs["kind"].loc[labels.index] == FEDERATED]
        shown = federated if len(federated) else labels
        best = figures["accuracy"].loc[shown.index].groupby(shown).mean().max()
        target = max(0.01, math.floor(100 * TARGET_SHARE * best) / 100)
    figures["to_target"] = measures.rounds_to(found, target)
    gains = measures.gains(found, pairing)
    everyone = pd.concat([labels, pairing.diverged]).sort_index()
    rows = [
        _row(name, figures[labels == name], gains, pairing, figures)
        | {"kind": _kind(found.runs["kind"].loc[everyone.index[everyone == name]])}
        for name in everyone.unique()
    ]
    table = _without_plain_counts(pd.DataFrame(rows))
    tests = paired_tests(list(table["row"]), figures["accuracy"], found, pairing, baseline)
    table = table.assign(**tests.table)
    partitions = found.runs["partition_sha256"].loc[labels.index].groupby(labels).nunique()
    anew = set(partitions.index[partitions > 1])
    first = everyone.drop_duplicates()
    told = {
        key: {name: value(found, int(run), key) for run, name in first.items()}
        for key in pairing.factors
    }
    return Comparison(
        table=_with_factors(table, told),
        factors=pairing.factors,
        isolated=_with_factors(measures.isolated(found, labels, anew), told),
        gains=_with_factors(gains, told),
        dealt_anew=anew,
        labels=labels,
        pairs=pairing.isolated,
        target=target,
        baseline=baseline if table["baseline"].notna().any() else None,
        about=about(found.select(labels.index)),
        notes=[*found.problems(), *pairing.notes, *tests.notes],
    )


def _kind(kinds: pd.Series) -> str:
    return str(kinds.iloc[0]) if kinds.nunique() == 1 else "mixed"


def _with_factors(frame: pd.DataFrame, told: dict[str, dict[Any, Any]]) -> pd.DataFrame:
    """Put a column per factor behind the rows' names; a column that is called so already stays."""
    frame = frame.copy()
    for place, (key, values) in enumerate(told.items()):
        if key not in frame:
            frame.insert(min(1 + place, frame.shape[1]), key, frame["row"].map(values))
    return frame


def _without_plain_counts(table: pd.DataFrame) -> pd.DataFrame:
    """Drop the numbers of runs behind a number where they are the rows'."""
    counts = [column for column in map(str, table) if column.endswith("/n")]
    plain = [c for c in counts if (table[c].isin([0]) | (table[c] == table["runs"])).all()]
    return table.drop(columns=plain)


def _row(
    name: str, mine: pd.DataFrame, gains: pd.DataFrame, pairing: Pairing, figures: pd.DataFrame
) -> dict[str, Any]:
    diverged = int((pairing.diverged == name).sum())
    row: dict[str, Any] = {"row": name, "runs": len(mine), "diverged": diverged}
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
    row["rounds_censored"] = mine["to_target"].fillna(math.inf).median()
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
    """Return a column's mean over the runs that have it, its interval, and how many they are."""
    numbers = [float(number) for number in values.dropna()]
    mean = float(np.mean(numbers)) if numbers else math.nan
    half = half_interval(numbers)
    low, high = (
        interval(name, mean, half) if numbers and not math.isnan(half) else (math.nan, math.nan)
    )
    return {
        name: mean,
        f"{name}/ci": half,
        f"{name}/low": low,
        f"{name}/high": high,
        f"{name}/n": len(numbers),
    }
