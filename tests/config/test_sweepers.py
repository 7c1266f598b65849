"""Multiruns by Optuna and by Joblib, as a user starts them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hydra.errors import MissingConfigException
from support.helpers import summary

from fedexp.analysis.results import load
from fedexp.config.explain import explain


def _fedexp(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fedexp", *words]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.slow  # whole commands: 10 to 20 s
def test_optuna_is_told_the_objective_and_learns_of_failures(tmp_path: Path) -> None:
    words = ["hydra.sweeper.n_trials=4", "backend=inline", "rounds=1", "objective=loss"]
    words.append("dataset.validation=0")
    found = _fedexp(
        tmp_path, "+experiment=tune", *words, "training.learning_rate=choice(1e30,0.02)"
    )
    (sweep,) = (tmp_path / "results" / "tune").iterdir()
    runs = load(sweep)
    assert len(runs.runs) == 4
    # A rate of 1e30 gives NaN, which the guard refuses; such a trial fails and the others count.
    states = runs.runs["status"].tolist()
    rates = runs.settings["training.learning_rate"]
    assert states == ["failed" if rate > 1 else "completed" for rate in rates]
    assert set(states) == {"failed", "completed"}
    assert found.returncode == 1
    assert "Traceback" not in found.stdout + found.stderr
    assert "note: failed: " in found.stdout
    losses = {run: summary(runs.path(run))["final"]["all"]["loss"] for run in runs.completed}
    best = min(losses, key=lambda run: losses[run])
    told = yaml.safe_load((sweep / "optimization_results.yaml").read_text())
    assert told["best_value"] == losses[best]
    assert told["best_params"]["strategy.eta"] == runs.settings.at[best, "strategy.eta"]


SHORT = ["backend=inline", "model=logistic", "rounds=1", "training.local_steps=2"]


@pytest.mark.slow  # whole commands: 10 to 20 s
@pytest.mark.parametrize(("objective", "best"), [("accuracy", 0.28), ("loss", 0.1)])
def test_optuna_finds_the_better_of_two(tmp_path: Path, objective: str, best: float) -> None:
    words = ["hydra/sweeper=optuna", "strategy=scaffold", f"objective={objective}"]
    more = ["training.learning_rate=choice(0.28,0.1)", "hydra.sweeper.n_trials=4"]
    more += ["hydra.sweeper.sampler.seed=0", "hydra.sweep.dir=out"]
    found = _fedexp(tmp_path, "-m", *words, *more, *SHORT)
    assert (found.returncode, found.stderr) == (0, "")
    told = yaml.safe_load((tmp_path / "out" / "optimization_results.yaml").read_text())
    assert told["best_params"] == {"training.learning_rate": best}


@pytest.mark.slow  # whole commands: 10 to 20 s
def test_a_stored_study_is_continued_by_the_same_command(tmp_path: Path) -> None:
    words = ["experiment=tune", "strategy=scaffold", "hydra.sweep.dir=out", *SHORT]
    longer = [*words[:2], "hydra.sweep.dir=whole", *SHORT, "hydra.sweeper.n_trials=6"]
    words.append("hydra.sweeper.n_trials=3")
    at_once = _fedexp(tmp_path, *longer)
    assert (at_once.returncode, at_once.stderr) == (0, "")
    for trials in (3, 6):
        found = _fedexp(tmp_path, *words, "hydra.sweeper.storage=sqlite:///study.db")
        assert (found.returncode, found.stderr) == (0, "")
        assert len(load(tmp_path / "out").runs) == trials
    rates = [
        load(tmp_path / name).settings["training.learning_rate"].tolist()
        for name in ("out", "whole")
    ]
    assert rates[0] == rates[1]
    other = _fedexp(tmp_path, *words, "hydra.sweeper.storage=sqlite:///study.db", "seed=1")
    assert (other.returncode, other.stdout) == (2, "")
    assert "has seed=0 in its trials, not 1" in other.stderr
    assert len(load(tmp_path / "out").runs) == 6


@pytest.mark.slow  # whole commands: 10 to 20 s
def test_joblib_runs_jobs_in_processes_of_their_own(tmp_path: Path) -> None:
    short = ["rounds=1", "training.local_epochs=1", "hydra.sweep.dir=out"]
    found = _fedexp(
        tmp_path, "-m", "+experiment=parallel", "strategy=fedavg,local_only", "seed=0,1", *short
    )
    assert (found.returncode, found.stderr) == (0, "")
    runs = load(tmp_path / "out")
    assert runs.completed == [0, 1, 2, 3]
    lines = found.stdout.splitlines()
    for name in runs.runs["name"]:
        assert any(line.startswith(f"{name}:   round 1/1  ") for line in lines)
    row = next(line for line in lines if line.startswith("fedavg "))
    assert row.split()[:2] == ["fedavg", "2"]


def test_without_slurm_nothing_is_written(tmp_path: Path) -> None:
    found = _fedexp(tmp_path, "-m", "experiment=slurm", "seed=0,1", "hydra.sweep.dir=out")
    assert (found.returncode, len(found.stderr.splitlines())) == (2, 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow  # two jobs of submitit: 15 s
def test_submitit_runs_the_jobs_as_slurm_would_be_told_to(tmp_path: Path) -> None:
    words = ["-m", "experiment=slurm", "hydra/launcher=submitit_local", "seed=0,1"]
    short = ["rounds=1", "training.local_epochs=1", "hydra.sweep.dir=out"]
    found = _fedexp(tmp_path, *words, *short)
    assert (found.returncode, found.stderr) == (0, "")
    runs = load(tmp_path / "out")
    assert runs.completed == [0, 1]
    assert [row.split()[:2] for row in found.stdout.splitlines() if row.startswith("fedavg ")]


@pytest.mark.parametrize(
    ("choice", "extra"),
    [
        ("hydra/sweeper/optuna", "optuna"),
        ("hydra/launcher/joblib", "joblib"),
        ("hydra/launcher/submitit_slurm", "slurm"),
        ("hydra/launcher/submitit_local", "slurm"),
    ],
)
def test_an_extra_that_is_missing_is_named(choice: str, extra: str) -> None:
    group = choice.rpartition("/")[0]
    error = MissingConfigException(
        f"In 'experiment/x': Could not find '{choice}'\n\nAvailable options in '{group}':\n\tbasic"
    )
    assert explain("+experiment=x", error) == (
        f"+experiment=x: {choice} is not installed: pip install 'fedexp[{extra}]'"
    )
