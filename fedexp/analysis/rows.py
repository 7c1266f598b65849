"""The rows of a comparison by what they are, and their numbers as a sentence has them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import pandas as pd

from fedexp.analysis.comparison import Comparison
from fedexp.analysis.results import CENTRALIZED, ISOLATED, Results
from fedexp.core.statistics import half_interval

NO_BREAK = "\u00a0"
"""A space at which no line ends."""


MAX_NAME = 60
"""Characters of a row's name in a sentence."""


class Estimate(NamedTuple):
    """A mean over runs.

    Attributes:
        mean: The mean.
        half: Half its 95 % interval; NaN for one run.
    """

    mean: float
    half: float = math.nan

    def number(self, *, signed: bool = False) -> str:
        """Write only the mean."""
        return format(self.mean, "+.3f" if signed else ".3f").replace("-", "−")

    def text(self, *, signed: bool = False) -> str:
        """Write the mean and its interval, in one piece wherever lines are broken."""
        interval = "" if math.isnan(self.half) else f"{NO_BREAK}±{NO_BREAK}{self.half:.3f}"
        return self.number(signed=signed) + interval


class Rows:
    """The rows of a comparison by what they are.

    Attributes:
        comparison: The comparison.
        table: Its table, indexed by the name of the row.
        strategies: Strategies of every row.
        isolated: Rows of nothing but isolated clients.
        centralized: Rows of nothing but centralized runs.
        federated: The others, from the best accuracy (or what else is judged by) down.
        goal: What runs are judged by.
        paired: Those of them that are compared with isolated clients.
    """

    def __init__(self, found: Results, comparison: Comparison) -> None:
        self.comparison, self.goal = comparison, comparison.goal
        shown = comparison.table[comparison.table["runs"] > 0]  # else nothing but diverged runs
        self.table: Any = shown.set_index("row")  # rows by name: Any spares casts
        labels = comparison.labels
        runs = {row: labels.index[labels == row] for row in self.table.index}
        self.strategies = {
            row: set(found.runs.loc[mine, "strategy"].astype(str)) for row, mine in runs.items()
        }
        kinds = {row: set(found.runs.loc[mine, "kind"]) for row, mine in runs.items()}
        self.isolated = [row for row, found in kinds.items() if found == {ISOLATED}]
        self.centralized = [row for row, found in kinds.items() if found == {CENTRALIZED}]
        merit = (self.goal.sign * self.table[self.goal.metric]).fillna(-math.inf)
        others = [row for row in self.strategies if row not in (*self.isolated, *self.centralized)]
        self.federated: list[str] = sorted(others, key=lambda row: -merit[row])
        self.paired = [row for row in self.federated if not math.isnan(self.table["gain"][row])]
        self._seeds = found.runs["seed"]

    @cached_property
    def by_setting(self) -> dict[str, str]:
        """The best federated row by the row of isolated clients that it is compared with."""
        labels = self.comparison.labels
        best: dict[str, str] = {}
        for row in self.paired:
            for run in labels.index[labels == row]:
                if run in self.comparison.pairs:
                    best.setdefault(str(labels[self.comparison.pairs[run]]), row)
        return best

    def runs(self, row: str, *, paired: bool = False) -> list[int]:
        """Return a row's runs; only those that are compared with isolated clients, if asked to."""
        labels = self.comparison.labels
        runs = labels.index[labels == row].tolist()
        return [run for run in runs if run in self.comparison.pairs] if paired else runs

    def over(self, runs: Sequence[int]) -> str:
        """Say how many seeds runs are of: ``3 seeds``, or ``6 runs of 3 seeds``."""
        seeds = counted(self._seeds.loc[list(runs)].nunique(), "seed")
        same = self._seeds.loc[list(runs)].is_unique
        return seeds if same else f"{len(runs)} runs of {seeds}"

    def alone(self, row: str, column: str = "alone") -> Estimate:
        """Return the mean of the isolated clients that a row is compared with."""
        return _over_runs(self._by_run(row, column).mean())

    def alone_best(self, row: str) -> Estimate:
        """Return the best of the isolated clients that a row is compared with."""
        by_run = self._by_run(row, "alone")
        return _over_runs(by_run.max() if self.goal.sign > 0 else by_run.min())

    def together(self, row: str, alone: str = "alone", gain: str = "gain") -> Estimate:
        """Return what a row reaches where it is compared with isolated clients."""
        if gain == "gain" and self.runs(row, paired=True) == self.runs(row):
            return self.final(row)  # to the last digit what the table says
        gained = self.goal.sign * self._by_run(row, gain).mean()
        return _over_runs(self._by_run(row, alone).mean() + gained)

    def final(self, row: str) -> Estimate:
        """Return what a row's final models are judged by."""
        return self.number(row, self.goal.metric)

    def worse_off(self, row: str) -> list[int]:
        """Return how many clients of each run lose on their own examples, from the fewest up."""
        own = self._by_run(row, "gain_own")
        return sorted(int(number) for number in own.apply(lambda gains: int((gains < 0).sum())))

    def number(self, row: str, column: str) -> Estimate:
        """Return a number of the table, with its interval if the table has one."""
        spread = f"{column}/ci"
        half = self.table.at[row, spread] if spread in self.table else math.nan
        return Estimate(float(self.table.at[row, column]), float(half))

    def has(self, row: str, column: str) -> bool:
        """Say whether the table has a number."""
        return column in self.table and not math.isnan(self.table.at[row, column])

    def _by_run(self, row: str, column: str) -> Any:
        gains = self.comparison.gains
        return gains[gains["row"] == row].dropna(subset=[column]).groupby("run")[column]


def client_gains(comparison: Comparison, row: str) -> pd.DataFrame:
    """Return gains by client and run: of the first run only, where each run has other clients."""
    mine = comparison.gains[comparison.gains["row"] == row].astype({"client": int})
    return mine[mine["run"] == mine["run"].iloc[0]] if row in comparison.dealt_anew else mine


def brief(name: str) -> str:
    """Shorten a long name in the middle: settings that are lists fill a page."""
    if len(name) <= MAX_NAME:
        return name
    half = MAX_NAME // 2
    return f"{name[:half].rstrip()} … {name[-half:].lstrip()}"


def counted(number: int, what: str) -> str:
    """Write a number of things: ``1 run``, ``1,000 runs``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _over_runs(values: pd.Series) -> Estimate:
    return Estimate(float(values.mean()), half_interval(values.tolist()))
