"""Read runs from disk as tidy pandas frames; imports nothing of what runs experiments.

found = results.load("results/lesson")
found.runs        one row a run: strategy, seed, status, seconds, hashes, ...
found.curves      one row a number and round: the global model's, or the mean of the local models
found.finals      one row a number of the last round (of the one that validation selected, where it did),
                  of the global model and of every client
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import yaml

from fedexp.analysis.goals import ACCURACY, Goal, goal_of, told_by
from fedexp.analysis.reading import COLUMNS, Chosen, Tables, metrics_text, parse
from fedexp.analysis.repeats import superseded
from fedexp.analysis.selection import selected_in, tuned_options
from fedexp.core import owner
from fedexp.core.commands import command

FEDERATED, ISOLATED, CENTRALIZED = "federated", "isolated", "centralized"
"""What a run is: ``kind`` in summary.json."""

_KINDS_BEFORE = {"local_only": ISOLATED, "centralized": CENTRALIZED}
"""Strategy -> kind, for runs from before summary.json had it."""

COMPLETED, DIVERGED, RUNNING, KILLED = "completed", "diverged", "running", "killed"
STOPPED = ("interrupted", KILLED)
"""A run that somebody stopped, and that can go on."""

_SUMMARY = ("status", "error", "strategy", "kind", "seed", "rounds", "seconds")
_FURTHER = ("model_sha256", "partition_sha256", "selected_on", "selected_by", "task")
_FILES = ("metrics.csv", "partition.json")
_CONFUSION = "confusion.csv"
# libyaml's parser takes a tenth of the time, which a thousand runs would feel.
_YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Results:
    """The runs below a folder, in the order of their names.

    Attributes:
        runs: Indexed by ``run`` (0, 1, ...): path, name, status (``completed``, ``failed``,
            ``interrupted``; ``diverged``: the loss is NaN or above a million nats, or the weights
            overflowed; ``running``, or ``killed`` where no process is behind it any more;
            ``unreadable``, also where metrics.csv was changed since), error, strategy, kind
            (``federated``, ``isolated``, ``centralized``), seed, rounds (done), seconds, model_sha256,
            partition_sha256, selected_on (``validation`` or ``test``; None: old), selected_by, task
            (what summary.json says of it, as text; None: a classification).
        settings: config.yaml, flat (``training.learning_rate``), indexed by ``run``; NaN where a run has
            no such option.
        curves: run, round, model (``global`` or ``local``), split, subset, metric, value: the global
            model's number, or the mean of the local models' (a client that was not sampled counts with
            what it had).
        finals: run, client (NA where the number is no single client's), model, split, subset, metric,
            value: of every model, the last that was taken; where validation selected a round, the last up
            to that one.
    """

    runs: pd.DataFrame
    settings: pd.DataFrame
    curves: pd.DataFrame
    finals: pd.DataFrame

    @cached_property
    def completed(self) -> list[int]:
        """The runs that came to their end."""
        runs: list[int] = self.runs.index[self.runs["status"] == COMPLETED].tolist()
        return runs

    def _shown(self) -> pd.DataFrame:
        return self.runs[["name", *_SUMMARY]].dropna(axis=1, how="all")

    def __repr__(self) -> str:
        """Show a line per run, as notebooks do; all frames together are no reading."""
        return repr(self._shown())

    def _repr_html_(self) -> str:
        """Show a line per run where a notebook ends a cell with results."""
        html: str = self._shown().to_html(na_rep="")
        return html

    @cached_property
    def ended(self) -> list[int]:
        """The runs whose rounds are over, those that diverged among them."""
        over = self.runs["status"].isin([COMPLETED, DIVERGED])
        runs: list[int] = self.runs.index[over].tolist()
        return runs

    def of_task(self, run: int) -> Results:
        """Return only the runs that have a run's task."""
        task = self.goal_of(run).task
        return self.select(other for other in self.runs.index if self.goal_of(other).task == task)

    def goal_of(self, run: int) -> Goal:
        """Return what a run is judged by."""
        told = self.runs.at[run, "task"]
        return goal_of(told if isinstance(told, str) else None)

    @cached_property
    def goal(self) -> Goal:
        """What runs are judged by: the first completed one, or the first of all."""
        first = [*self.completed[:1], *self.runs.index[:1]]
        return self.goal_of(first[0]) if first else ACCURACY

    @property
    def metrics(self) -> list[str]:
        """The metrics on test examples beside what runs are judged by and the loss, from a to z."""
        tested = self.finals.loc[self.finals["split"] == "test", "metric"].unique()
        return sorted(str(name) for name in tested if name not in (self.goal.metric, "loss"))

    @cached_property
    def tuned(self) -> frozenset[str]:
        """The options that ``fedexp tune`` chose for every strategy, if all runs are its last ones: each
        strategy has values of its own, as of an option of its page."""
        return tuned_options(map(str, self.runs["path"]))

    @cached_property
    def superseded(self) -> dict[int, int]:
        """Run that did not come to its end -> the completed run of the same configuration that was
        started later."""
        over = self.runs["status"].isin([COMPLETED, DIVERGED, RUNNING])
        return superseded(self.settings, self.runs.index[~over], self.completed, self.started)

    def problems(self) -> list[str]:
        """Return a line for every run that did not come to its end, also not when it was run again."""
        rest = self.runs[self.runs["status"] != COMPLETED].drop(index=list(self.superseded))
        return [
            f"{row.status}: {row.path}: "
            + (_one_line(row.error) if isinstance(row.error, str) else "see run.log")
            for row in rest.itertuples()
        ]

    def path(self, run: int) -> Path:
        """Return a run's folder."""
        return Path(str(self.runs.at[run, "path"]))

    def started(self, run: int) -> float:
        """Return when a run was started, in seconds since 1970; 0 where it does not say."""
        try:
            return datetime.fromisoformat(environment(self.path(run))["started"]).timestamp()
        except (OSError, KeyError, ValueError):
            return 0.0

    def select(self, runs: Iterable[int]) -> Results:
        """Return only the given runs, under the same numbers."""
        chosen = list(runs)
        return Results(
            self.runs.loc[chosen],
            self.settings.loc[chosen],
            self.curves[self.curves["run"].isin(chosen)],
            self.finals[self.finals["run"].isin(chosen)],
        )


def load(*paths: str | Path) -> Results:
    """Read every run in or below folders.

    Raises:
        FileNotFoundError: If there is no run.
    """
    found = {f.parent for path in paths for f in Path(path).rglob("summary.json")}
    folders = sorted(found, key=_natural)
    if not folders:
        listed = ", ".join(map(str, paths))
        raise FileNotFoundError(f"{listed}: no run here (a run's folder holds summary.json)")
    rows, settings = [], []
    tables = Tables()
    for run, folder in enumerate(folders):
        (row, position, chosen), config = _summary(folder), {}
        try:
            config = _flat(_config(folder), "")
            _require_files(folder, row)
            tables.add(run, metrics_text(folder, position), chosen)
        except (OSError, ValueError, yaml.YAMLError) as error:
            row |= _unreadable(error)
        rows.append(row)
        settings.append(config)
    curves, finals = tables.close()
    for run, reason in tables.errors.items():
        rows[run] |= _unreadable(reason)
    for run in _without_loss(finals):
        if rows[run]["status"] == COMPLETED:  # from before a run said so itself
            rows[run] |= {"status": DIVERGED, "error": "the loss is not finite"}
    return Results(
        pd.DataFrame(rows).rename_axis("run"),
        # As objects: 10 beside an unset option would become 10.0, and the unset one would look absent.
        pd.DataFrame(settings, index=range(len(rows)), dtype=object).rename_axis("run"),
        curves,
        finals,
    )


def metrics(folder: str | Path) -> pd.DataFrame:
    """Return one run's metrics.csv: round, model, split, subset, client (Int32), metric, value."""
    return parse({0: metrics_text(Path(folder))})[COLUMNS]


def confusion(folder: str | Path) -> dict[int | None, npt.NDArray[np.int64]]:
    """Return a run's confusion matrices, shape (num_classes, num_classes), rows the true labels.

    Returns:
        By client, or None for the global model; empty where models name no labels.
    """
    rows: dict[int | None, list[list[str]]] = {}
    if not (Path(folder) / _CONFUSION).is_file():
        return {}
    for line in (Path(folder) / _CONFUSION).read_text().split()[1:]:
        client, _, *counts = line.split(",")
        rows.setdefault(int(client) if client else None, []).append(counts)
    return {client: np.array(counts, dtype=np.int64) for client, counts in rows.items()}


def partition(folder: str | Path) -> dict[str, Any]:
    """Return a run's partition.json: class_counts, classes (names), num_examples, sha256, ..."""
    content: dict[str, Any] = json.loads((Path(folder) / "partition.json").read_text())
    return content


def seconds(folder: str | Path) -> pd.Series:
    """Return the seconds from a run's start to the end of every round, indexed by round."""
    table = pd.read_csv(Path(folder) / "timings.csv")
    return table.groupby("round")["seconds"].sum().cumsum()


def environment(folder: str | Path) -> dict[str, Any]:
    """Return a run's environment.json: command, overrides, packages, ..."""
    content: dict[str, Any] = json.loads((Path(folder) / "environment.json").read_text())
    return content


def _natural(path: Path) -> tuple[str, int, str]:
    head, _, _ = path.name.partition("-")
    return str(path.parent), int(head) if head.isdigit() else -1, path.name


def _summary(folder: Path) -> tuple[dict[str, Any], dict[str, Any] | None, Chosen]:
    """Return a run's row, what its metrics.csv must be if it is complete and says so, and the round
    that it selected."""
    row: dict[str, Any] = {"path": str(folder), "name": folder.name}
    row |= dict.fromkeys((*_SUMMARY, *_FURTHER))
    try:
        content = json.loads((folder / "summary.json").read_text())
        before = _KINDS_BEFORE.get(content.get("strategy"), FEDERATED)
        row |= {"kind": before} | {key: content[key] for key in row if key in content}
        row["task"] = told_by(content)
        goal_of(row["task"])
        if row["status"] == RUNNING and not owner.is_owned(folder):
            row["status"] = KILLED
        if row["status"] in STOPPED:
            row["error"] = f"it can go on: {command('resume', str(folder))}"
        over = row["status"] in (COMPLETED, DIVERGED)
        return row, content.get("metrics_csv") if over else None, selected_in(content)
    except (OSError, ValueError, KeyError, TypeError) as error:
        unreadable = {"status": "unreadable", "error": f"summary.json: {error}", "task": None}
        return row | unreadable, None, None


def _without_loss(finals: pd.DataFrame) -> list[int]:
    """Return the runs of which no model has a finite loss on the whole test set."""
    losses = finals[
        (finals["metric"] == "loss") & (finals["split"] == "test") & (finals["subset"] == "all")
    ]
    finite = np.isfinite(losses["value"]).groupby(losses["run"]).any()
    return [int(run) for run in finite.index[~finite]]


def _require_files(folder: Path, row: dict[str, Any]) -> None:
    wanted = [*_FILES, *([_CONFUSION] if goal_of(row["task"]).has_labels else [])]
    missing = [name for name in wanted if not (folder / name).is_file()]
    if missing and row["status"] == COMPLETED:
        raise ValueError(f"{' and '.join(missing)} of a completed run: not there any more")


def _config(folder: Path) -> dict[str, Any]:
    try:
        with (folder / "config.yaml").open("rb") as file:
            return yaml.load(file, Loader=_YAML_LOADER) or {}
    except FileNotFoundError:
        return {}


def _flat(node: dict[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in node.items():
        below = _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else None
        flat.update({f"{prefix}{key}": value} if below is None else below)
    return flat


def _unreadable(error: Exception) -> dict[str, Any]:
    return {"status": "unreadable", "error": _one_line(error)}


def _one_line(error: object) -> str:
    return " ".join(str(error).split())
