"""An engineer's case: a file per hospital, one command, no code; the same rows in one Parquet file."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from support.documents import ROOT

from fedexp.analysis.comparison import compare
from fedexp.analysis.results import load

HOSPITALS = ROOT / "docs" / "hospitals"
OWN = ("dataset=files", "dataset.target=outcome", "partition=given", "model=logistic")


def _run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fedexp", *words, *OWN],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "COLUMNS": "100"},
    )


def _hash(folder: Path) -> str:
    told: str = json.loads((folder / "summary.json").read_text())["model_sha256"]
    return told


@pytest.mark.slow
def test_federated_against_isolated_hospital_by_hospital(tmp_path: Path) -> None:
    shutil.copytree(HOSPITALS, tmp_path / "wards")
    words = ("-m", "strategy=fedavg,local_only", "dataset.path=wards", "hydra.sweep.dir=out")
    done = _run(tmp_path, *words)
    assert (done.returncode, done.stderr) == (0, "")
    (table,) = [
        part
        for part in done.stdout.split("\n\n")
        if part.startswith("owner   strategy    tested on")
    ]
    told = [line.split()[:3] for line in table.splitlines()[2:]]
    assert told == [
        [owner, strategy, count]
        for owner, count in (("north", "72"), ("river", "44"), ("valley", "14"))
        for strategy in ("fedavg", "local_only")
    ]
    found = compare(load(tmp_path / "out"))
    assert {"accuracy", "auroc", "balanced_accuracy"} < set(found.own)
    better = found.table.set_index("row")["auroc"]
    assert better["fedavg"] > better["local_only"]
    report = subprocess.run(
        [sys.executable, "-m", "fedexp", "report", "out"], cwd=tmp_path, timeout=300, check=False
    )
    assert report.returncode == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert all(name in page for name in ("north", "river", "valley", "its auroc"))


@pytest.mark.slow
def test_one_parquet_file_with_a_column_of_hospitals_gives_the_same_bits(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    files = sorted(HOSPITALS.glob("*.csv"))
    parts = [pd.read_csv(file).assign(hospital=file.stem) for file in reversed(files)]
    pd.concat(parts).to_parquet(tmp_path / "all.parquet", index=False)
    short = ("backend=inline", "rounds=2")
    one = ("dataset.path=all.parquet", "dataset.client=hospital")
    assert _run(tmp_path, f"dataset.path={HOSPITALS}", *short, "hydra.run.dir=csv").returncode == 0
    assert _run(tmp_path, *one, *short, "hydra.run.dir=parquet").returncode == 0
    metrics = [(tmp_path / run / "metrics.csv").read_bytes() for run in ("csv", "parquet")]
    assert _hash(tmp_path / "csv") == _hash(tmp_path / "parquet")
    assert metrics[0] == metrics[1]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["ray", "flower"])
def test_every_backend_gives_the_same_bits(tmp_path: Path, backend: str) -> None:
    where = (f"dataset.path={HOSPITALS}", "rounds=2", "clients.fraction_evaluate=1")
    assert _run(tmp_path, *where, "backend=inline", "hydra.run.dir=a").returncode == 0
    on = (f"backend={backend}", "backend.workers=1", "hydra.run.dir=b")
    assert _run(tmp_path, *where, *on).returncode == 0
    assert _hash(tmp_path / "a") == _hash(tmp_path / "b")
    metrics = [(tmp_path / run / "metrics.csv").read_bytes() for run in ("a", "b")]
    assert metrics[0] == metrics[1]


@pytest.mark.slow
def test_a_run_goes_on_with_the_same_files_elsewhere_and_with_no_others(tmp_path: Path) -> None:
    shutil.copytree(HOSPITALS, tmp_path / "wards")
    where = ("dataset.path=wards", "backend=inline", "checkpoint.every=1")
    assert _run(tmp_path, *where, "rounds=3", "hydra.run.dir=whole").returncode == 0
    assert _run(tmp_path, *where, "rounds=1", "hydra.run.dir=part").returncode == 0

    def resume(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "fedexp", "resume", "part", "rounds=3", *words]
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
        )

    (tmp_path / "wards").rename(tmp_path / "moved")
    assert resume().returncode == 2
    rows = list(csv.reader((tmp_path / "moved" / "river.csv").open()))
    text = (tmp_path / "moved" / "river.csv").read_text()
    rows[1][0] = str(int(rows[1][0]) + 1)
    (tmp_path / "moved" / "river.csv").write_text("\n".join(map(",".join, rows)))
    changed = resume("dataset.path=moved")
    assert changed.returncode == 2
    assert "holds other examples than before" in changed.stderr
    (tmp_path / "moved" / "river.csv").write_text(text)
    assert resume("dataset.path=moved").returncode == 0
    assert _hash(tmp_path / "part") == _hash(tmp_path / "whole")
