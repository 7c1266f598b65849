"""``fedexp tune``: what it refuses, how it goes on, that it finds the better of two obvious values."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.programs import program

from fedexp import resume, runner, tune
from fedexp.analysis.comparison import compare
from fedexp.analysis.results import load
from fedexp.commands import COMMANDS
from fedexp.core import owner
from fedexp.federation.events import RunInfo

SHORT = ["backend=inline", "model=logistic", "partition=iid", "rounds=1", "training.local_steps=2"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder; the program's end is an exception."""

    def leave(code: int) -> None:
        owner.release()
        raise SystemExit(code)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "leave", leave)
    return tmp_path


def _tune(*words: str, command: str = "tune") -> int:
    with pytest.raises(SystemExit) as ended:
        COMMANDS[command](words)
    code = ended.value.code
    assert isinstance(code, int)
    return code


def _folder(where: Path) -> Path:
    (folder,) = (where / "results" / "tune").iterdir()
    return folder


@pytest.mark.parametrize(
    ("words", "errors"),
    [
        (["trials=3"], ["strategy: name one or more, as in strategy=fedavg,scaffold"]),
        (["strategy=fedavg,fedavg"], ["strategy=fedavg,fedavg: each one once"]),
        (
            ["strategy=fedavg", "trials=0", "final_seeds=x"],
            [
                "trials must be a whole number >= 1, got '0'",
                "final_seeds must be a whole number >= 1, got 'x'",
            ],
        ),
        (
            ["strategy=fedavg", "hydra.sweep.dir=out", "experiment=tune"],
            [
                f"{word}: has no place here: fedexp tune makes the trials itself"
                for word in ("hydra.sweep.dir=out", "experiment=tune")
            ],
        ),
        (["nowhere"], ["nowhere: no such tuning (tune.json is not there)"]),
        (
            ["nowhere", "strategy=fedavg"],
            ["nowhere: not of the form option=value; a folder stands alone"],
        ),
    ],
)
def test_words_that_cannot_be_are_refused_and_nothing_written(
    here: Path, capsys: pytest.CaptureFixture[str], words: list[str], errors: list[str]
) -> None:
    assert _tune(*words) == 2
    told = capsys.readouterr()
    assert told.err.splitlines() == [f"fedexp tune: {line}" for line in errors]
    assert (told.out, list(here.iterdir())) == ("", [])


@pytest.mark.slow  # composes several times: 1 s each
@pytest.mark.parametrize(
    ("words", "start"),
    [
        (["strategy=fedavg,nope"], "strategy=nope: strategy must be one of "),
        (["strategy=fedavg", "seed=0,1"], "seed=0,1: all trials of a study have the same seed"),
        (["strategy=fedavg,krum"], "strategy=krum needs at least 5 clients in a round"),
        (["strategy=fedavg", "strategy.eta=interval(0.1,1)"], "strategy.eta=interval(0.1,1): "),
    ],
)
def test_what_no_trial_could_be_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str], words: list[str], start: str
) -> None:
    assert _tune(*words) == 2
    assert capsys.readouterr().err.splitlines()[0].startswith(f"fedexp tune: {start}")
    assert list(here.iterdir()) == []


@pytest.mark.slow  # composes: 1 s
def test_a_launcher_is_refused_since_trials_run_one_after_another(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    assert _tune("strategy=fedavg", "experiment=parallel") == 2
    told = capsys.readouterr()
    assert len(told.err.splitlines()) == 1
    assert told.err.startswith("fedexp tune: hydra/launcher=joblib: ")
    assert list(here.iterdir()) == []


SCRIPT = """from dataclasses import dataclass

from fedexp import main, strategies
from fedexp.strategies.fedavg import FedAvg


@strategies.register
@dataclass(frozen=True)
class Mine(FedAvg):
    name: str = "mine"


if __name__ == "__main__":
    main()
"""


@pytest.mark.slow  # two processes that train: 20 s
def test_ctrl_c_in_a_script_of_ones_own_says_how_it_goes_on(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(SCRIPT)
    words = ["strategy=mine,local_only", "trials=2", "final_seeds=2", *SHORT]
    command = [sys.executable, "mine.py", "tune", *words]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("mine, trial 2"):
                process.send_signal(signal.SIGINT)
                break
        rest, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (130, "")
    folder = _folder(tmp_path).relative_to(tmp_path)
    last = rest.splitlines()[-1]
    assert last == f"next: python mine.py resume {folder}"
    found = program(tmp_path, *last.split()[2:])
    assert (found.returncode, found.stderr) == (0, "")
    assert len(load(tmp_path / folder / "trials").runs) == 4
    final = load(tmp_path / folder / "final")
    assert final.runs["strategy"].tolist() == ["mine"] * 2 + ["local_only"] * 2
    # Each has a learning rate of its own, and yet the gain of one over the other is known.
    assert final.tuned == {"training.learning_rate"}
    assert compare(final).table["gain"].notna().tolist() == [True, False]
    commands = json.loads((tmp_path / folder / "winners.json").read_text())
    assert {told["command"].partition(" -m ")[0] for told in commands.values()} == {
        "python mine.py"
    }


@pytest.mark.slow  # a dozen runs: 10 s
def test_the_better_of_two_is_found_for_each_strategy_and_run_on_fresh_seeds(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rates = "training.learning_rate=choice(0.02,1e-7,1e30)"
    fixed = "strategy.server_learning_rate=1"
    assert _tune("strategy=scaffold", "trials=7", rates, fixed, *SHORT) == 0
    folder = _folder(here)
    winners = json.loads((folder / "winners.json").read_text())
    assert winners["scaffold"]["params"] == {"training.learning_rate": 0.02}
    trials = load(folder / "trials")
    assert len(trials.runs) == 7
    lost = trials.runs.index[trials.runs["status"] != "completed"].tolist()
    assert {trials.settings.at[run, "training.learning_rate"] for run in lost} == {1e30}
    final = load(folder / "final")
    assert final.runs["seed"].tolist() == [1, 2, 3]
    assert final.settings["training.learning_rate"].tolist() == [0.02] * 3
    told = capsys.readouterr().out
    assert f"; {len(lost)} failed or diverged" in told
    command = shlex.split(winners["scaffold"]["command"])
    assert command[:2] == ["fedexp", "-m"]
    again = program(here, *command[1:], "hydra.sweep.dir=again")
    assert again.returncode == 0
    hashes = [load(here / name).runs["model_sha256"] for name in (str(folder / "final"), "again")]
    assert hashes[0].tolist() == hashes[1].tolist()


@pytest.mark.slow  # two tunings: 20 s
@pytest.mark.parametrize("stop", [0, 3, 5, 7])
def test_one_that_was_stopped_ends_as_if_it_had_not(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stop: int
) -> None:
    words = ["strategy=fedavg,scaffold", "trials=3", "final_seeds=1", *SHORT]
    assert _tune(*words) == 0
    whole = _folder(here).rename(here / "whole")
    runs = 0

    def stopped(run: RunInfo, sweep: Path | None, overrides: Sequence[str]) -> bool:
        nonlocal runs
        if runs == stop:
            raise KeyboardInterrupt
        runs += 1
        return resume.completed(run, sweep, overrides)

    with monkeypatch.context() as patched:
        patched.setattr(tune, "completed", stopped)
        assert _tune(*words) == 130
    folder = _folder(here)
    relative = folder.relative_to(here)
    assert capsys.readouterr().out.splitlines()[-1] == f"next: fedexp resume {relative}"
    assert _tune(str(relative), command="resume") == 0
    for name in ("trials", "final"):
        found = [load(place / name) for place in (whole, folder)]
        assert found[0].runs["name"].tolist() == found[1].runs["name"].tolist()
        assert found[0].runs["model_sha256"].tolist() == found[1].runs["model_sha256"].tolist()
    told = [json.loads((place / "winners.json").read_text()) for place in (whole, folder)]
    assert told[0] == told[1]
    assert _tune(str(relative)) == 0  # nothing is left to do
    assert len(load(folder).runs) == 8
