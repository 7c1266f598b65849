"""The comparison that fedexp is for, by its real commands: no warnings, and the numbers of the files."""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

STRATEGIES = ("fedavg", "fedadam", "fedmedian", "qfedavg", "local_only", "centralized")
SUBSETS = ("all", "1-3-7", "2-5-8", "4-6-9")
T_975 = 4.302652729911275  # Student's t with 2 degrees of freedom, from a table
ROOT = Path(__file__).parents[1]

Finals = dict[str, dict[int, dict[tuple[str, str], float]]]
"""Strategy -> seed -> (metric, subset) -> value after the last round."""


def _quiet(*command: str) -> str:
    found = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    assert found.stderr == ""
    return found.stdout


def _finals(sweep: Path) -> Finals:
    """Read metrics.csv with nothing but the csv module; isolated clients by their mean."""
    finals: Finals = {}
    for folder in sweep.glob("*-s*"):
        run = json.loads((folder / "summary.json").read_text())
        values: dict[tuple[str, str], list[float]] = {}
        with (folder / "metrics.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                if row["split"] == "test" and int(row["round"]) == run["rounds"]:
                    values.setdefault((row["metric"], row["subset"]), []).append(
                        float(row["value"])
                    )
        means = {key: sum(found) / len(found) for key, found in values.items()}
        finals.setdefault(run["strategy"], {})[run["seed"]] = means
    return finals


@pytest.mark.slow  # 18 runs, about a minute
def test_the_table_is_that_of_the_files(tmp_path: Path) -> None:
    strategies = f"strategy={','.join(STRATEGIES)}"
    sweep = ("seed=0,1,2", "partition=lesson", f"hydra.sweep.dir={tmp_path}")
    closing = _quiet("-m", "fedexp", "-m", strategies, *sweep)
    assert "Accuracy on the test set after the last round" in closing
    _quiet("scripts/report.py", str(tmp_path))
    assert (tmp_path / "report.html").stat().st_size > 100_000
    printed = _quiet("scripts/compare.py", str(tmp_path), "--format", "csv")
    table = {row["row"]: row for row in csv.DictReader(io.StringIO(printed))}
    assert tuple(table) == STRATEGIES
    finals = _finals(tmp_path)
    for strategy, seeds in finals.items():
        row = table[strategy]
        for metric in ("accuracy", "loss"):
            for subset in SUBSETS:
                name = metric if subset == "all" else f"{metric}/{subset}"
                values = [seeds[seed][metric, subset] for seed in (0, 1, 2)]
                interval = T_975 * statistics.stdev(values) / math.sqrt(3)
                assert float(row[name]) == pytest.approx(statistics.mean(values), abs=1e-12)
                assert float(row[f"{name}/ci"]) == pytest.approx(interval, abs=1e-9)
        gains = [
            seeds[seed]["accuracy", "all"] - finals["local_only"][seed]["accuracy", "all"]
            for seed in (0, 1, 2)
        ]
        if strategy != "local_only":
            assert float(row["gain"]) == pytest.approx(statistics.mean(gains), abs=1e-12)
