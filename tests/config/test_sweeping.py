"""Sweeps of a group with an option of what is chosen, and what launches the jobs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fedexp.analysis.results import load
from fedexp.config.composition import plan
from fedexp.core.options import ConfigError


@pytest.mark.parametrize(
    ("swept", "option", "values"),
    [
        ("partition=dirichlet,dirichlet_balanced", "partition.alpha=0.25", [0.25, 0.25]),
        ("strategy=fedadam,fedyogi", "strategy.eta=0.3", [0.3, 0.3]),
        ("model=choice(mlp)", "model.hidden=[7,5]", [[7, 5]]),
        ("dataset=toy_text partition=iid model=gru,char_lstm", "model.embedding=5", [5, 5]),
        ("dataset=mnist,kmnist", "dataset.root=../some where/x", ["../some where/x"] * 2),
        ("backend=ray,flower", "backend.workers=null", [None, None]),
        ("partition=choice(dirichlet)", "partition.alpha=1e-1", [0.1]),
    ],
)
def test_an_option_of_every_choice_is_set_in_each_job(
    swept: str, option: str, values: list[Any]
) -> None:
    group, _, name = option.partition("=")[0].partition(".")
    jobs = plan([*swept.split(), option], multirun=True)
    assert [getattr(getattr(job.config, group), name) for job in jobs] == values
    by_choice = plan([*swept.split(), *jobs[0].command[1:]], multirun=True)  # as Hydra is told
    assert [job.config for job in by_choice] == [job.config for job in jobs]


def test_an_option_that_some_choices_lack_is_refused_with_their_names() -> None:
    with pytest.raises(ConfigError) as found:
        plan(["strategy=fedadam,fedavg,fednova", "strategy.eta=0.1", "rounds=0"], multirun=True)
    refused, other = found.value.errors
    assert refused.startswith("strategy.eta: ")
    lacking, _, known = refused.partition("unlike")
    assert ("strategy=fedavg" in lacking, "strategy=fednova" in lacking) == (True, True)
    assert ("strategy=fedadam" in known, "strategy=fedavg" in known) == (True, False)
    assert other.startswith("rounds ")


@pytest.mark.parametrize(
    "swept", ["seed=glob(*)", "seed=interval(0,1)", "seed=range(3,0)", "seed=range(0,1000000000)"]
)
def test_a_sweep_that_makes_no_jobs_or_far_too_many_is_one_line(swept: str) -> None:
    with pytest.raises(ConfigError) as found:
        plan([swept], multirun=True)
    assert len(found.value.errors) == 1


def test_glob_chooses_among_the_files_of_a_group() -> None:
    jobs = plan(["strategy=glob(fedad*)"], multirun=True)
    assert [job.config.strategy.name for job in jobs] == ["fedadagrad", "fedadam"]


def _fedexp(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fedexp", *words]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.slow  # a whole command: 5 s
def test_a_sweep_with_an_option_runs_as_it_was_checked(tmp_path: Path) -> None:
    found = _fedexp(
        tmp_path,
        *["-m", "partition=dirichlet,dirichlet_balanced", "partition.alpha=0.1"],
        *["clients=cross_silo", "backend=inline", "model=logistic", "rounds=1"],
        *["training.local_steps=2", "hydra.sweep.dir=out"],
    )
    assert (found.returncode, found.stderr) == (0, "")
    runs = load(tmp_path / "out")
    assert runs.settings["partition.alpha"].tolist() == [0.1, 0.1]
    last = runs.finals.query("metric == 'accuracy' and split == 'test' and client.isna()")
    assert last["value"].round(3).tolist() == [0.109, 0.121]


@pytest.mark.parametrize(
    ("words", "backends"),
    [
        (["hydra/launcher=joblib"], {"inline"}),
        (["hydra/launcher=joblib", "backend.workers=1"], {"ray"}),
        (["hydra/launcher=joblib", "backend=flower,ray"], {"flower", "ray"}),
        (["experiment=parallel"], {"inline"}),
        (["experiment=slurm"], {"inline"}),
        ([], {"ray"}),
    ],
)
def test_processes_of_a_launcher_start_no_ray_unless_told(
    words: list[str], backends: set[str]
) -> None:
    jobs = plan(["seed=0,1", *words], multirun=True)
    assert {job.config.backend.name for job in jobs} == backends
    launcher = "slurm" if "experiment=slurm" in words else "joblib"
    assert {job.launcher for job in jobs} == {launcher if words else "basic"}
