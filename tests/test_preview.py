"""``mode=partition``, from the command line to the folder it leaves."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.folders import federated, write_run
from support.helpers import config, tiny_data

from fedexp.analysis.results import load
from fedexp.analysis.tables import closing_table
from fedexp.config.composition import compose_config
from fedexp.data.assignment import Assignment
from fedexp.federation.dealing import describe_partition, federate
from fedexp.partitions.feature_noise import FeatureNoise
from fedexp.preview import partition_table

# Like `python -m fedexp`, but ends by saying which heavy modules were imported.
SPY = """
import os, runpy, sys
leave = os._exit
def spy(code):
    print([m for m in ("torch", "ray", "flwr") if m in sys.modules], flush=True)
    leave(code)
os._exit = spy
sys.argv = ["fedexp", *sys.argv[1:]]
runpy.run_module("fedexp", run_name="__main__")
"""


def _run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SPY, *words, "mode=partition"]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.slow
def test_a_partition_is_shown_and_written_without_training(tmp_path: Path) -> None:
    found = _run(tmp_path, "partition=dirichlet", "clients.num=10", "hydra.run.dir=out")
    assert (found.returncode, found.stderr) == (0, "")
    lines = found.stdout.splitlines()
    assert (lines[-3], lines[-1]) == ("  out", "[]"), "neither torch nor ray nor flwr was imported"
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        *("config.yaml", "partition.json", "partition.png"),
    }
    written = json.loads((tmp_path / "out" / "partition.json").read_text())
    expected = federate(compose_config(["partition=dirichlet", "clients.num=10"]))
    assert written["sha256"] == expected.partition.sha256
    assert f"  sha256 {written['sha256']}" in lines
    rows = [line.split() for line in lines if line.split()[:1] in [[str(k)] for k in range(10)]]
    # The client, its examples, its test examples, then a number a label.
    counts = [[int(number) for number in row] for row in rows if len(row) == 13]
    assert [row[1] for row in counts] == written["num_examples"]
    assert [row[2] for row in counts] == written["num_test_examples"]
    assert [row[3:] for row in counts] == written["class_counts"]
    assert yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())["mode"] == "partition"


@pytest.mark.slow
def test_a_multirun_shows_each_and_compares_nothing(tmp_path: Path) -> None:
    words = ["partition=iid,shards", "hydra.sweep.dir=out", "clients.num=25"]
    found = _run(tmp_path, "-m", *words)
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.count("examples per client: min 160, median 160, max 160") == 2
    assert found.stdout.count("... and 5 more clients") == 2
    assert "accuracy" not in found.stdout
    assert found.stdout.splitlines()[-1] == "[]"
    assert len(list((tmp_path / "out").glob("*/partition.png"))) == 2
    # What reads finished runs sees none here, rather than two that failed.
    with pytest.raises(FileNotFoundError, match="no run here"):
        load(tmp_path / "out")


def test_previews_beside_runs_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "0-preview").mkdir()
    (tmp_path / "0-preview" / "partition.json").write_text("{}")
    write_run(tmp_path / "1-run", "fedavg", federated(0.5))
    text, all_completed = closing_table(tmp_path)
    assert all_completed
    assert "fedavg" in text


def test_what_cannot_be_dealt_ends_with_exit_code_1(tmp_path: Path) -> None:
    words = ["partition=quantity", "partition.alpha=0.01", "partition.min_size=400"]
    found = _run(tmp_path, *words, "clients.num=10", "hydra.run.dir=out")
    assert found.returncode == 1
    (line,) = found.stderr.splitlines()
    assert line.startswith(
        "fedexp: run failed: partition=quantity at partition.alpha=0.01 and clients.num=10: "
        "none of 1,000 draws gave every"
    )
    assert not (tmp_path / "out" / "partition.json").exists()


def test_what_no_client_holds_is_counted() -> None:
    data = tiny_data((4, 8, 6))
    part = Assignment.of([data.partition.client(k) for k in (0, 2)])
    some = dataclasses.replace(data, partition=part, client_test=part)
    assert describe_partition(config(), some)["num_unassigned"] == 8
    assert "8 of 18 training examples belong to no client" in partition_table(config(), some)


def test_noise_is_noted_and_leaves_the_hash() -> None:
    data = tiny_data()
    noisy = config(partition=FeatureNoise(noise_std=0.75))
    with_noise, without = describe_partition(noisy, data), describe_partition(config(), data)
    assert with_noise["noise_std"] == [0.25, 0.5, 0.75]
    assert "noise_std" not in without
    assert with_noise["sha256"] == without["sha256"]


def test_many_labels_are_counted_not_listed() -> None:
    data = tiny_data()
    wide = dataclasses.replace(
        data, spec=dataclasses.replace(data.spec, classes=tuple(map(str, range(100))))
    )
    lines = partition_table(config(), wide).splitlines()
    assert lines[2].split() == ["client", "examples", "test", "examples", "labels"]
    assert any(line.strip().endswith("of 100") for line in lines)
