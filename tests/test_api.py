"""Experiments from Python are those of the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.helpers import summary

from fedexp import api
from fedexp.analysis import figures, results
from fedexp.api import compare, run
from fedexp.core.options import ConfigError

SHORT = ("backend=inline", "training.local_epochs=1", "rounds=1")


@pytest.mark.slow
def test_every_combination_is_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run("strategy=fedavg,local_only", "seed=0,1", *SHORT, folder=tmp_path / "out")
    jobs = ["0-fedavg-s0", "1-fedavg-s1", "2-local_only-s0", "3-local_only-s1"]
    assert found.runs["name"].tolist() == jobs
    assert found.completed == [0, 1, 2, 3]
    assert compare(found).table["row"].tolist() == ["fedavg", "local_only"]
    overrides = results.environment(found.path(3))["overrides"]
    assert overrides == ["strategy=local_only", "seed=1", *SHORT]
    assert "round 1/1" in (found.path(3) / "run.log").read_text()
    assert "round 1/1" not in (found.path(3) / "metrics.csv").read_text()
    assert capsys.readouterr().out.count("round 1/1") == 4


def test_the_runs_are_those_of_the_command_line(tmp_path: Path, run_of: object) -> None:
    found = run("rounds=2", "training.local_epochs=1", "backend=inline", folder=tmp_path)
    assert callable(run_of)
    other = run_of("backend=inline")
    assert summary(found.path(0))["model_sha256"] == summary(other)["model_sha256"]
    assert found.path(0) == tmp_path  # one run needs no folder below


def test_folders_are_named_as_usual(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = run("name=mine", *SHORT)
    assert found.path(0).parent == Path("results/mine")


def test_mistakes_are_told_at_once_and_write_nothing(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"^seed must be >= 0, got -1\nrounds must be >= 1, got 0$"
    ):
        run("rounds=0", "seed=-1", folder=tmp_path / "out")
    with pytest.raises(ConfigError, match="runs from the command line only"):
        run("+experiment=tune", folder=tmp_path / "out")
    with pytest.raises(ConfigError, match="mode=partition trains nothing"):
        run("mode=partition", folder=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_that_fails_is_named_and_the_next_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run("training.learning_rate=1e30,0.01", *SHORT, folder=tmp_path)
    assert found.runs["status"].tolist() == ["failed", "completed"]
    (problem,) = found.problems()
    assert "all 3 clients failed to train" in problem
    errors = capsys.readouterr().err
    assert errors.startswith("fedexp: run failed: round 1: all 3 clients failed to train")
    assert "Traceback" in (found.path(0) / "run.log").read_text()


@pytest.mark.slow  # a process of its own: 5 s
def test_seaborn_is_imported_with_the_figures_only() -> None:
    code = (
        "import sys, fedexp.api; before = 'seaborn' in sys.modules;"
        "from fedexp.api import figures; print(before, 'seaborn' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "True"]
    assert api.figures is figures
    with pytest.raises(AttributeError, match="has no attribute 'figure'"):
        _ = api.figure


def test_a_list_of_overrides_is_refused_with_what_to_write() -> None:
    with pytest.raises(TypeError, match=r"got a list; of a list, write run\(\*overrides\)"):
        run(["strategy=fedavg", "seed=0"])  # type: ignore[arg-type]
