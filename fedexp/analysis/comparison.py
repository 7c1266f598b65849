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
from fedexp.analysis.goals import Goal
from fedexp.analysis.measures import GAINS
from fedexp.analysis.owners import by_owner
from fedexp.analysis.paired import paired_tests
from fedexp.analysis.pairing import Pairing
from fedexp.analysis.personal import personal, with_finetune
from fedexp.analysis.provenance import about
from fedexp.analysis.results import FEDERATED, Results
from fedexp.analysis.selection import moment, sentences
from fedexp.core.statistics import half_interval

BASELINE = "fedavg"
TARGET_SHARE = 0.95
"""The target accuracy, where none is given, as a share of the best federated row's final one.

Where a smaller number is the better one, the best row's is that share of the target.
"""


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare` found.

    Where runs are judged by another metric than accuracy (``goal.metric``), it has accuracy's place in
    all that follows; where a smaller number of it is the better one, gains and differences are turned, so
    that above 0 is better.

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
        methods: Those among them that belong to a strategy, and the strategy itself.
        isolated: A row per isolated client: ``row``, factors, ``client``, means over runs
            of ``accuracy`` and ``accuracy/<subset>``; where the runs of a row have different partitions,
            one for the best client of each run, whose ``client`` is NA.
        gains: A row per run that has isolated clients to be compared with, and client: ``row``, factors,
            ``run``, ``seed``, ``client``; its accuracy minus the isolated client's on the whole test set
            (``gain``), on the client's own test examples (``gain_own``) and on labels that it holds no
            training example of (``gain_unseen``, NaN if none); and what the isolated client had:
            ``alone``, ``alone_own``, ``alone_unseen``; where a strategy has models for its clients,
            ``gain_finetune``, too: its accuracy on its own examples minus that of ``strategy=finetune``.
        personal: What clients have on their own examples, a row per row of the table; see
            :class:`fedexp.analysis.personal.Personal`. None where no strategy has models for its
            clients, and nobody is a newcomer.
        own: A row per ``row`` and client that the data name (``partition=given``): ``client``, ``owner``,
            ``tested on`` (its test examples), and every metric on these, means over runs.
        dealt_anew: Rows whose runs have different partitions: their client 0 is another one every time,
            and means over runs by client say nothing.
        labels: Row of every run that was compared.
        pairs: Run -> the run of isolated clients that it is compared with, where there is one.
        goal: What the runs are judged by.
        target: The accuracy that ``rounds_to_target`` is about.
        baseline: The strategy, or the row, that ``p_value`` tests against; None if there is none.
        about: Dataset, partition, seeds and date of the runs, in a line.
        moment: Of which round the numbers are: ``after the last round``, or of the one that was selected.
        selection: On which data runs selected, a line for each kind of run.
        notes: What a reader must know: runs that did not complete or were left out, pairs that are
            missing, rounds that differ.
    """

    table: pd.DataFrame
    factors: list[str]
    methods: list[str]
    isolated: pd.DataFrame
    gains: pd.DataFrame
    personal: pd.DataFrame | None
    own: pd.DataFrame
    dealt_anew: set[str]
    labels: pd.Series
    pairs: dict[int, int]
    goal: Goal
    target: float
    baseline: str | None
    about: str
    moment: str
    selection: list[str]
    notes: list[str]

    def _shown(self) -> pd.DataFrame:
        judged = self.goal.metric
        wanted = ["runs", judged, f"{judged}/ci", "loss", "gain", "gain_own", "p_value"]
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
        prefix = f"{self.goal.metric}/"
        columns = [c for c in map(str, self.table) if c.startswith(prefix)]
        names = [column.removeprefix(prefix) for column in columns]
        return [
            name for name in names if name not in ("ci", "low", "high", "n") and "/" not in name
        ]

    @property
    def metrics(self) -> list[str]:
        """The metrics beside that which runs are judged by and the loss that the table has."""
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
            best federated row's, rounded down to two decimals. Of a metric of which a smaller number is
            the better one, None is what the best row's is 95 % of, to three digits.
        baseline: The strategy that others are tested against, seed by seed and within equal other
            settings; or the name of one row.

    Raises:
        ValueError: If no run completed, ``by`` names an option that the runs do not have, or no run could
            reach the target.
    """
    if not found.completed:
        words = ["no run completed, so there is nothing to compare", *found.problems()[:3]]
        raise ValueError("; ".join(words))
    found, other_tasks = _of_one_task(found)
    pairing, goal = Pairing(found, by), found.goal
    labels = pairing.labels
    figures = measures.by_run(found.select(labels.index))
    if figures[goal.metric].isna().all():
        raise ValueError(f"no completed run has {_article(goal.metric)} on the test set")
    if target is None:
        federated = labels[found.runs["kind"].loc[labels.index] == FEDERATED]
        shown = federated if len(federated) else labels
        means = figures[goal.metric].loc[shown.index].groupby(shown).mean()
        target = _target(float((goal.sign * means).max()), goal)
    else:
        _check_target(target, goal)
    figures["to_target"] = measures.rounds_to(found, target)
    own = personal(found.select(labels.index), pairing)
    gains = with_finetune(measures.gains(found, pairing), own)
    everyone = pd.concat([labels, pairing.diverged]).sort_index()
    rows = [
        _row(name, figures[labels == name], gains, pairing, figures)
        | {"kind": _kind(found.runs["kind"].loc[everyone.index[everyone == name]])}
        for name in everyone.unique()
    ]
    table = _without_plain_counts(pd.DataFrame(rows))
    turned = goal.sign * figures[goal.metric]
    tests = paired_tests(list(table["row"]), turned, found, pairing, baseline)
    table = table.assign(**tests.table)
    partitions = found.runs["partition_sha256"].loc[labels.index].groupby(labels).nunique()
    anew = set(partitions.index[partitions > 1])
    first, compared = everyone.drop_duplicates(), found.select(labels.index)
    alone = measures.isolated(found, labels, anew)
    apart = measures.tested_apart(compared, alone)
    if apart:  # of which none is known to be the best
        table["gain_best"] = math.nan
    told = {
        key: {name: value(found, int(run), key) for run, name in first.items()}
        for key in pairing.factors
    }
    return Comparison(
        table=_with_factors(table, told),
        factors=pairing.factors,
        methods=pairing.methods,
        isolated=_with_factors(alone, told),
        gains=_with_factors(gains, told),
        personal=None if own is None else _with_factors(own.table, told),
        own=by_owner(compared, labels, anew),
        dealt_anew=anew,
        labels=labels,
        pairs=pairing.isolated,
        goal=goal,
        target=target,
        baseline=baseline if table["baseline"].notna().any() else None,
        about=about(compared),
        moment=moment(compared),
        selection=sentences(compared),
        notes=[
            *found.problems(),
            *_again(found),
            *other_tasks,
            *pairing.notes,
            *tests.notes,
            *apart,
        ],
    )


def _of_one_task(found: Results) -> tuple[Results, list[str]]:
    """Return the runs of the first completed run's task, and a note on those of others."""
    mine = found.of_task(found.completed[0])
    rest = sorted({found.goal_of(run).task for run in found.runs.index} - {mine.goal.task})
    if not rest:
        return found, []
    left = len(found.runs) - len(mine.runs)
    return mine, [
        f"{left} run{'s' * (left > 1)} of another task ({', '.join(rest)}) left out: only runs of one "
        f"task ({mine.goal.task}) can be compared"
    ]


def _again(found: Results) -> list[str]:
    """Return a note on the runs that did not complete at first."""
    number = len(found.superseded)
    if not number:
        return []
    runs = (
        "1 run that did not complete is"
        if number == 1
        else f"{number} runs that did not complete are"
    )
    return [f"{runs} left out: run again later with the same configuration, and completed"]


def _target(best: float, goal: Goal) -> float:
    """Return the target for the best row, whose value is turned so that larger is better."""
    if goal.sign > 0:
        return max(0.01, math.floor(100 * TARGET_SHARE * best) / 100)
    return float(f"{-best / TARGET_SHARE:.3g}")


def _check_target(target: float, goal: Goal) -> None:
    low, high = goal.limits(goal.metric)
    if not (math.isfinite(target) and low < target <= high):
        ends = f" and <= {high:g}" if math.isfinite(high) else ""
        raise ValueError(f"argument --target: must be > {low:g}{ends}, got {target:g}")


def _article(metric: str) -> str:
    return f"{'an' if metric[0] in 'aeiour' else 'a'} {metric}"


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
    goal = pairing.goal
    of_metrics = {goal.metric, "loss", *others}
    measured = [c for c in map(str, mine) if c.partition("/")[0] in of_metrics]
    for column in dict.fromkeys((goal.metric, "loss", *measured)):
        row |= _mean(column, mine[column], goal)
    for column in (c for c in map(str, mine) if c.startswith("client_mean/")):
        row[column] = mine[column].mean()
    reached = mine["to_target"].dropna()
    row |= {"rounds_to_target": reached.median(), "reached": len(reached)}
    row["rounds_censored"] = mine["to_target"].fillna(math.inf).median()
    for column in ("seconds", "client_mean", "client_std", "client_worst10"):
        row[column] = mine[column].mean()
    own = gains[gains["row"] == name]
    for column in GAINS:
        row |= _mean(column, own.groupby("run")[column].mean().dropna(), goal)
    row["gain_best"] = own.groupby("run")["gain"].min().mean()
    judged = own.dropna(subset=["gain_own"])
    worse = (judged["gain_own"] < 0).groupby(judged["run"]).sum()
    row |= {"worse_off": worse.mean(), "clients": judged.groupby("run").size().mean()}
    central = [run for run in mine.index if run in pairing.centralized]
    base = figures[goal.metric].loc[[pairing.centralized[run] for run in central]]
    distance = goal.sign * (mine[goal.metric].loc[central] - base.to_numpy())
    return row | _mean("to_centralized", distance, goal)


def _mean(name: str, values: pd.Series, goal: Goal) -> dict[str, float]:
    """Return a column's mean over the runs that have it, its interval, and how many they are."""
    numbers = [float(number) for number in values.dropna()]
    mean = float(np.mean(numbers)) if numbers else math.nan
    half = half_interval(numbers)
    low, high = (
        goal.interval(name, mean, half)
        if numbers and not math.isnan(half)
        else (math.nan, math.nan)
    )
    return {
        name: mean,
        f"{name}/ci": half,
        f"{name}/low": low,
        f"{name}/high": high,
        f"{name}/n": len(numbers),
    }
