"""SuperLink and SuperNodes as processes: the same bits as in this process, and nothing left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest
from support.documents import ROOT
from support.federation import can_be_apart, federation
from support.helpers import flattened, played_by, summary

from fedexp.backends.flower_app import app_files
from fedexp.config.backend import DeploymentBackend
from fedexp.config.composition import compose_config, plan
from fedexp.config.flat import from_flat
from fedexp.core.options import ConfigError, FedexpError
from fedexp.core.roles import Job
from fedexp.experiment import run_experiment
from fedexp.federation.events import RunInfo
from fedexp.flower.superlink import bundle
from fedexp.runner import ensure

SHORT = ("model=logistic", "training.local_epochs=1", "rounds=2", "clients.fraction_evaluate=1")


def _folders() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("fedexp-rehearsal-*"))


# --- what is refused, and what is submitted; no process is started ----------------------------------


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["backend.nodes=2"], "backend.nodes must be clients.num=3"),
        (["backend.superlink=there"], "backend.superlink must be HOST:PORT, got 'there'"),
        (["backend.superlink=there:0"], "backend.superlink must be HOST:PORT"),
        (["backend.superlink=a:1", "backend.nodes=3"], "leave one of the two out"),
        (["backend.insecure=true"], "backend.insecure is about a SuperLink"),
        (["backend.secret=x"], "backend.secret is about a SuperLink"),
        (
            ["backend.superlink=a:1", "backend.insecure=true", "backend.root_certificates=x"],
            "leave out backend.root_certificates",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_options_that_contradict_each_other_are_refused(overrides: list[str], told: str) -> None:
    with pytest.raises(ConfigError) as error:
        plan(["backend=deployment", *overrides], multirun=False)
    assert len(error.value.errors) == 1
    assert told in error.value.errors[0]


def test_an_app_holds_the_configuration_and_nothing_of_how_the_superlink_is_reached() -> None:
    config = compose_config(
        ["backend=deployment", "backend.superlink=a:1", "backend.secret=/s", "backend.timeout=5"]
    )
    files = app_files(config)
    options = tomllib.loads(files["pyproject.toml"])["tool"]["flwr"]["app"]["config"]
    row = {"backend.timeout": options["backend"]["timeout"], "rounds": options["rounds"]}
    assert row == {"backend.timeout": 5.0, "rounds": config.rounds}
    assert "a:1" not in str(files)
    assert "/s" not in files["pyproject.toml"].partition("[tool.flwr.app.config]")[2]


@pytest.mark.parametrize("word", ["a b", 'quo"te', "ü😀", "null", "it's", "1e5", "[x"])
def test_an_app_is_toml_that_flower_takes(word: str) -> None:
    config = replace(compose_config(["backend=deployment"]), name=word)
    files = app_files(config)
    assert bundle(files)[:2] == b"PK"
    options = tomllib.loads(files["pyproject.toml"])["tool"]["flwr"]["app"]["config"]
    assert from_flat(flattened(options)).name == config.name


def test_code_that_nodes_do_not_have_is_refused_before_anything_starts() -> None:
    def run(job: Job) -> None:
        job.send(job.train())

    with pytest.raises(FedexpError, match=r"strategy=mine is known to .* alone"):
        ensure([played_by(run, backend=DeploymentBackend())])


def test_a_superlink_that_is_not_there_is_told_in_a_line(tmp_path: Path) -> None:
    config = compose_config(
        ["backend=deployment", "backend.superlink=127.0.0.1:1", "backend.insecure=true", *SHORT]
    )
    with pytest.raises(FedexpError, match=r"the SuperLink does not answer.*fedexp resume"):
        run_experiment(RunInfo(config, tmp_path / "run"))
    assert summary(tmp_path / "run")["status"] == "failed"


@pytest.mark.parametrize("option", ["root_certificates", "secret"])
def test_a_file_that_is_not_there_is_told_in_a_line(tmp_path: Path, option: str) -> None:
    given = ["backend.superlink=127.0.0.1:1", f"backend.{option}={tmp_path}/none"]
    config = compose_config(["backend=deployment", *given, *SHORT])
    with pytest.raises(FedexpError, match=rf"^backend.{option}=.*/none cannot be read: No such"):
        run_experiment(RunInfo(config, tmp_path / "run"))


# --- a rehearsal ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    output: str


def _fedexp(folder: Path, *words: str) -> Done:
    done = subprocess.run(
        [sys.executable, "-m", "fedexp", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    return Done(done.returncode, done.stdout + done.stderr)


@pytest.mark.slow  # SuperLink, three SuperNodes, four runs: 1 to 3 min
def test_a_rehearsal_changes_no_bit_and_leaves_nothing(tmp_path: Path) -> None:
    before = _folders()
    sweep = ["-m", "strategy=fedavg,scaffold,fedadam,ditto", *SHORT]
    done = _fedexp(tmp_path, *sweep, "backend=deployment", "backend.nodes=3", "hydra.sweep.dir=a")
    assert done.code == 0, done.output
    assert _fedexp(tmp_path, *sweep, "backend=inline", "hydra.sweep.dir=b").code == 0
    runs = sorted(path.parent.name for path in tmp_path.glob("a/*/summary.json"))
    assert len(runs) == 4
    for name in runs:
        mine, theirs = tmp_path / "a" / name, tmp_path / "b" / name
        assert summary(mine)["model_sha256"] == summary(theirs)["model_sha256"]
        for file in ("metrics.csv", "failures.csv", "partition.json", "confusion.csv"):
            assert (mine / file).read_bytes() == (theirs / file).read_bytes()
    assert _folders() == before


@pytest.mark.slow  # two rehearsals, two runs: 2 min
def test_hospitals_that_show_nobody_their_files_train_the_same_model(tmp_path: Path) -> None:
    before, names = _folders(), ("north", "river", "valley")
    hospitals = ROOT / "docs" / "hospitals"
    for name in names:  # each in a folder of its own
        (tmp_path / name).mkdir()
        shutil.copy(hospitals / f"{name}.csv", tmp_path / name)
    data = f"backend.data=[{','.join(f'{name}/{name}.csv' for name in names[::-1])}]"
    done = _fedexp(tmp_path, "survey", "agreed/dataset/wards.yaml", "dataset.target=outcome", data)
    assert done.code == 0, done.output
    common = ("strategy=fedavg,local_only", "partition=given", "model=logistic", "rounds=2")
    apart = ("--config-dir", "agreed", "-m", "dataset=wards", "backend=deployment", data)
    done = _fedexp(tmp_path, *apart, *common, "hydra.sweep.dir=apart")
    assert done.code == 0, done.output
    assert "Every owner on test examples of its own" in done.output
    files = ("dataset=files", f"dataset.path={hospitals}", "dataset.target=outcome")
    done = _fedexp(tmp_path, "-m", *common, *files, "backend=inline", "hydra.sweep.dir=together")
    assert done.code == 0, done.output
    for strategy in ("fedavg", "local_only"):
        found = [
            summary(path.parent)
            for path in sorted(tmp_path.glob(f"*/*-{strategy}-s0/summary.json"))
        ]
        assert len(found) == 2
        assert found[0]["model_sha256"] == found[1]["model_sha256"]
    assert _fedexp(tmp_path, "report", "apart").code == 0
    assert _folders() == before


@pytest.mark.slow  # 3 to 8 min: every message starts a program
@pytest.mark.skipif(not can_be_apart(), reason="needs root, iproute2, openssl and ssh-keygen")
def test_hospitals_on_machines_of_their_own_train_the_same_model(tmp_path: Path) -> None:
    names, held = ("north", "river", "valley"), []
    for name in names[::-1]:
        folder = tmp_path / f"at {name}"
        folder.mkdir()
        shutil.copy(ROOT / "docs" / "hospitals" / f"{name}.csv", folder / "patients.csv")
        held.append(f'data="{folder}/patients.csv" client="{name}"')
    common = ("partition=given", "model=logistic", "rounds=1")
    with federation(3, apart=True, held=held) as found:
        asked = ("agreed/dataset/wards.yaml", "dataset.target=outcome", "clients.num=3")
        done = _fedexp(tmp_path, "survey", *asked, *found.overrides)
        assert done.code == 0, done.output
        words = ("--config-dir", "agreed", "dataset=wards", *common, *found.overrides)
        done = _fedexp(tmp_path, *words, "hydra.run.dir=apart")
        assert done.code == 0, done.output
    files = (
        "dataset=files",
        f"dataset.path={ROOT / 'docs' / 'hospitals'}",
        "dataset.target=outcome",
    )
    done = _fedexp(tmp_path, *common, *files, "backend=inline", "hydra.run.dir=together")
    assert done.code == 0, done.output
    mine, theirs = summary(tmp_path / "apart"), summary(tmp_path / "together")
    assert mine["model_sha256"] == theirs["model_sha256"]


@pytest.mark.slow  # 20 s each
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_nothing_outlives_a_driver_that_was_stopped(tmp_path: Path, number: int) -> None:
    before = _folders()
    command = [sys.executable, "-u", "-m", "fedexp", "backend=deployment", *SHORT, "rounds=1000"]
    driver = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    assert any("round 1/" in line for line in driver.stdout)
    started = psutil.Process(driver.pid).children(recursive=True)
    assert len(started) >= 5  # the keeper, SuperLink, three SuperNodes
    os.kill(driver.pid, number)
    driver.wait(60)
    _, left = psutil.wait_procs(started, timeout=30)
    assert left == []
    assert _folders() == before
    (found,) = tmp_path.glob("results/*/*/summary.json")
    told = json.loads(found.read_text())["status"]
    assert told == ("running" if number == signal.SIGKILL else "interrupted")


@pytest.mark.slow  # 40 s
def test_a_run_with_state_goes_on_after_a_kill_to_the_bit(tmp_path: Path) -> None:
    words = ("strategy=scaffold", *SHORT, "rounds=3", "checkpoint.every=1")
    command = [sys.executable, "-u", "-m", "fedexp", "backend=deployment", *words]
    driver = subprocess.Popen(
        [*command, "hydra.run.dir=run"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    assert driver.stdout is not None
    assert any("round 2/" in line for line in driver.stdout)
    driver.kill()
    driver.wait()
    done = _fedexp(tmp_path, "resume", "run")
    assert done.code == 0, done.output
    assert _fedexp(tmp_path, *words, "backend=inline", "hydra.run.dir=whole").code == 0
    for file in ("metrics.csv", "failures.csv"):
        assert (tmp_path / "run" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    mine, theirs = summary(tmp_path / "run"), summary(tmp_path / "whole")
    assert mine["model_sha256"] == theirs["model_sha256"]
