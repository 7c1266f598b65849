"""Read finished runs from disk and compare them; imports nothing of what runs experiments."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

ISOLATED = "local_only"
MAX_CLIENT_ROWS = 10


@dataclass(frozen=True)
class Run:
    """One run's folder.

    Attributes:
        path: The folder.
        summary: summary.json; ``status`` is completed, failed, interrupted or running.
        metrics: metrics.csv; empty if the run wrote none.
    """

    path: Path
    summary: dict[str, Any]
    metrics: pd.DataFrame

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
    return Run(folder, summary, metrics)


def comparison(runs: list[Run]) -> pd.DataFrame:
    """Compare strategies with isolated clients.

    Each number is a mean over the runs of a strategy, one per seed in most sweeps. The gain of a federated run is its accuracy
    minus that of the isolated clients of the same seed on the same partition, where there are any.

    Returns:
        One row per federated strategy, then one for the mean isolated client, the best, and each (up
        to ten); columns: model, runs, one accuracy per subset (``all`` first), gain_over_mean and
        gain_over_best (differences of accuracy on ``all``).
    """
    done = [run for run in runs if run.completed]
    isolated = {_pair(run): run.final() for run in done if run.summary["strategy"] == ISOLATED}
    rows: list[dict[str, Any]] = []
    federated = [run for run in done if run.summary["strategy"] != ISOLATED]
    for strategy in dict.fromkeys(run.summary["strategy"] for run in federated):
        group = [run for run in federated if run.summary["strategy"] == strategy]
        rows.append({"model": strategy, **_mean([_federated_row(run, isolated) for run in group])})
    if isolated:
        tables = list(isolated.values())
        rows.append({"model": f"{ISOLATED}: mean client", **_mean([t.mean() for t in tables])})
        best = [table.iloc[int(table["all"].argmax())] for table in tables]
        rows.append({"model": f"{ISOLATED}: best client", **_mean(best)})
        clients = sorted(set.intersection(*(set(table.index) for table in tables)))
        if len(clients) <= MAX_CLIENT_ROWS:
            rows += [
                {"model": f"{ISOLATED}: client {int(c)}", **_mean([t.loc[c] for t in tables])}
                for c in clients
            ]
    frame = pd.DataFrame(rows)
    first = ["model", "runs", "all"]
    last = [name for name in ("gain_over_mean", "gain_over_best") if name in frame]
    return (
        frame[[*first, *(c for c in frame if c not in [*first, *last]), *last]] if rows else frame
    )


def _pair(run: Run) -> tuple[int, str]:
    return run.summary["seed"], run.summary["partition_sha256"]


def _federated_row(run: Run, isolated: dict[tuple[int, str], pd.DataFrame]) -> pd.Series:
    row = run.final().iloc[0].copy()
    alone = isolated.get(_pair(run))
    if alone is not None:
        row["gain_over_mean"] = row["all"] - alone["all"].mean()
        row["gain_over_best"] = row["all"] - alone["all"].max()
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
