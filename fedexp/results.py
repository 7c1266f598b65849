"""Read finished runs from disk and compare them; imports nothing of what runs experiments."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import yaml
from rich import box
from rich.console import Console
from rich.table import Table

ISOLATED = "local_only"
MAX_CLIENT_ROWS = 10
_NOT_SETTINGS = ("name", "seed", "strategy.name")


@dataclass(frozen=True)
class Run:
    """One run's folder.

    Attributes:
        path: The folder.
        summary: summary.json; ``status`` is completed, failed, interrupted or running.
        metrics: metrics.csv; empty if the run wrote none.
        settings: config.yaml, flat (``training.learning_rate``), less what names or seeds the run.
    """

    path: Path
    summary: dict[str, Any]
    metrics: pd.DataFrame
    settings: dict[str, Any]

    @property
    def strategy(self) -> str:
        """Name of the strategy."""
        return str(self.summary["strategy"])

    @property
    def completed(self) -> bool:
        """Whether the run came to its end."""
        return bool(self.summary["status"] == "completed")

    def final(self) -> pd.DataFrame:
        """Return every model's last accuracy on the test set, indexed by client, a column a subset.

        The client is NaN for the global model.
        """
        rows = self.metrics.query("split == 'test' and metric == 'accuracy'")
        last = rows.sort_values("round", kind="stable").groupby(["client", "subset"], dropna=False)
        return last["value"].last().unstack("subset")


def load(path: Path) -> list[Run]:
    """Read every run in or below a folder, in the order of their names.

    Raises:
        FileNotFoundError: If there is no run.
    """
    folders = sorted({file.parent for file in path.rglob("summary.json")}, key=_natural)
    if not folders:
        raise FileNotFoundError(f"{path}: no run here (a run's folder holds summary.json)")
    return [_load_run(folder) for folder in folders]


def _natural(path: Path) -> list[Any]:
    head, _, _ = path.name.partition("-")
    return [str(path.parent), int(head) if head.isdigit() else -1, path.name]


def _load_run(folder: Path) -> Run:
    summary = json.loads((folder / "summary.json").read_text())
    file = folder / "metrics.csv"
    metrics = pd.read_csv(file, dtype={"subset": str}) if file.is_file() else pd.DataFrame()
    file = folder / "config.yaml"
    config = yaml.safe_load(file.read_text()) if file.is_file() else {}
    settings = {k: v for k, v in _flat(config, "").items() if k not in _NOT_SETTINGS}
    return Run(folder, summary, metrics, settings)


def _flat(node: dict[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in node.items():
        flat.update(
            _flat(value, f"{prefix}{key}.")
            if isinstance(value, dict)
            else {f"{prefix}{key}": value}
        )
    return flat


def comparison(runs: list[Run]) -> pd.DataFrame:
    """Compare strategies with isolated clients.

    Runs that differ in their seed alone are averaged; any other setting that a sweep varies is part
    of a row's name. The gain of a federated run is its accuracy minus that of the isolated clients of
    the same seed, partition and settings, where there are any.

    Returns:
        One row per federated strategy, then one for the mean isolated client, the best, and each (up
        to ten); columns: model, runs, one accuracy per subset (``all`` first), gain_over_mean and
        gain_over_best (differences of accuracy on ``all``).
    """
    done = [run for run in runs if run.completed]
    varied = _varied(done)
    isolated = {_pair(run, varied): run for run in done if run.strategy == ISOLATED}
    rows: list[dict[str, Any]] = []
    for name, group in _by_name([r for r in done if r.strategy != ISOLATED], varied):
        finals = [_with_gain(run, isolated.get(_pair(run, varied))) for run in group]
        rows.append({"model": name, **_mean(finals)})
    for name, group in _by_name([r for r in done if r.strategy == ISOLATED], varied):
        rows += _isolated_rows(name, [run.final() for run in group])
    frame = pd.DataFrame(rows)
    first = ["model", "runs", "all"]
    last = [name for name in ("gain_over_mean", "gain_over_best") if name in frame]
    middle = [str(name) for name in frame if name not in [*first, *last]]
    return frame[first + middle + last] if rows else frame


def _isolated_rows(name: str, tables: list[pd.DataFrame]) -> list[dict[str, Any]]:
    best = [table.iloc[int(table["all"].argmax())] for table in tables]
    rows = [
        {"model": f"{name}: mean client", **_mean([table.mean() for table in tables])},
        {"model": f"{name}: best client", **_mean(best)},
    ]
    clients = sorted(set.intersection(*(set(table.index) for table in tables)))
    if len(clients) <= MAX_CLIENT_ROWS:
        rows += [
            {"model": f"{name}: client {int(c)}", **_mean([t.loc[c] for t in tables])}
            for c in clients
        ]
    return rows


def _varied(runs: list[Run]) -> list[str]:
    """Return the options that change results, but for seed and strategy, in which runs differ.

    Options of a strategy count as different only between runs of that strategy.
    """
    values: dict[tuple[str, str], set[str]] = {}
    for run in runs:
        for key, value in run.settings.items():
            if not key.startswith("backend.") and key != "dataset.root":
                owner = run.strategy if key.startswith("strategy.") else ""
                values.setdefault((key, owner), set()).add(repr(value))
    return list(dict.fromkeys(key for (key, _), seen in values.items() if len(seen) > 1))


def _by_name(runs: list[Run], varied: list[str]) -> list[tuple[str, list[Run]]]:
    groups: dict[str, list[Run]] = {}
    for run in runs:
        parts = [f"{key}={run.settings[key]}" for key in varied if key in run.settings]
        groups.setdefault(" ".join([run.strategy, *parts]), []).append(run)
    return list(groups.items())


def _pair(run: Run, varied: list[str]) -> tuple[str, ...]:
    # A strategy's own options do not concern the isolated clients that it is held against.
    shared = [key for key in varied if not key.startswith("strategy.")]
    settings = [f"{key}={run.settings.get(key)}" for key in shared]
    return (str(run.summary["seed"]), run.summary["partition_sha256"], *settings)


def _with_gain(run: Run, isolated: Run | None) -> pd.Series:
    row = run.final().iloc[0].copy()
    if isolated is not None:
        alone = isolated.final()["all"]
        row["gain_over_mean"] = row["all"] - alone.mean()
        row["gain_over_best"] = row["all"] - alone.max()
    return row


def _mean(rows: list[Any]) -> dict[str, Any]:
    means = pd.DataFrame(rows).mean()
    return {"runs": len(rows), **{str(name): value for name, value in means.items()}}


def closing_table(path: Path) -> tuple[str, bool]:
    """Render the comparison of the runs below a folder.

    Returns:
        The text, which names every run that did not complete, and whether all completed.
    """
    try:
        runs = load(path)
    except FileNotFoundError as error:
        return str(error), False
    lines = [_render(comparison(runs), path)] if any(run.completed for run in runs) else []
    for run in runs:
        if not run.completed:
            reason = run.summary.get("error", "see run.log")
            lines.append(f"{run.summary['status']}: {run.path}: {reason}")
    return "\n".join(lines), all(run.completed for run in runs)


def _render(frame: pd.DataFrame, path: Path) -> str:
    table = Table(box=box.SIMPLE_HEAD)
    for column in frame:
        side: Literal["left", "right"] = "left" if column == "model" else "right"
        table.add_column(str(column).replace("_", " "), justify=side)
    for row in frame.itertuples(index=False):
        table.add_row(*(_cell(str(name), value) for name, value in zip(frame, row, strict=True)))
    buffer = io.StringIO()
    Console(file=buffer, width=120).print(table)
    lines = [f"Final accuracy on the test set, mean over runs: {path}"]
    lines += [line.rstrip() for line in buffer.getvalue().rstrip().splitlines()]
    lines.append("  all: the whole test set; a name such as 1-3-7: its images of these labels.")
    if "gain_over_mean" in frame:
        lines.append("  gain: federated minus isolated on all, same seed and partition.")
    return "\n".join(lines)


def _cell(name: str, value: Any) -> str:
    if isinstance(value, float) and np.isnan(value):
        return ""
    if name.startswith("gain"):
        return f"{value:+.3f}"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
