from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from fedexp.analysis.results import Results, load
from fedexp.reproduce.published import Direction, synthetic

SCRIPT = Path(__file__).parents[1] / "scripts" / "reproduce.py"
REFERENCE = Path(__file__).parents[1] / "results" / "reference"
SHORT = ["dataset=mnist5k", "training.local_epochs=1", "backend=inline"]


def _start(folder: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-u", str(SCRIPT), *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, cwd=folder, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )


@pytest.mark.slow  # whole commands: 10 s each
def test_figures_out_of_tolerance_fail_and_are_not_written(tmp_path: Path) -> None:
    before = (REFERENCE / "lesson.csv").read_bytes()
    process = _start(tmp_path, "lesson", *SHORT)
    output, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (1, "")
    lines = [line for line in output.splitlines() if re.match("pass|FAIL", line)]
    assert len(lines) == 15
    # Of 5,000 digits no client has the sizes of 60,000; what it never saw it still does not know.
    assert [line[:4] for line in lines if "images of client" in line] == ["FAIL"] * 3
    assert [line[:4] for line in lines if "unseen" in line] == ["pass"] * 3
    assert output.splitlines()[-1] == "not written: overrides make this another experiment"
    assert (REFERENCE / "lesson.csv").read_bytes() == before
    assert len(list((tmp_path / "results" / "lesson").glob("*/*/metrics.csv"))) == 2


@pytest.mark.slow  # whole commands: 10 s each
def test_runs_that_are_too_many_are_named(tmp_path: Path) -> None:
    process = _start(tmp_path, "lesson", *SHORT, "rounds=1", "seed=0,1")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert re.fullmatch(r"fedexp reproduce: lesson is 2 run\(s\), .* made 4 of it: .*\n", errors)


@pytest.mark.slow  # whole commands: 10 s each
def test_quick_says_where_it_stands(tmp_path: Path) -> None:
    words = [*SHORT, "clients.num=3", "model=logistic", "rounds=2"]
    process = _start(tmp_path, "niid_fmnist", "--quick", *words)
    output, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")
    *_, standing, published = output.splitlines()
    assert re.fullmatch(
        r"fedavg after round 10: accuracy 0\.\d{3}, best 0\.\d{3} \(round \d+\)", standing
    )
    assert published == "published: 0.88 +- 0.02 at best in 50 rounds"


@pytest.mark.slow  # whole commands: 10 s each
@pytest.mark.parametrize("kill", [os.killpg, os.kill], ids=["terminal", "kill -INT"])
def test_an_interrupted_one_says_where_it_stands(
    tmp_path: Path, kill: Callable[[int, int], None]
) -> None:
    process = _start(tmp_path, "niid_fmnist", *SHORT, "clients.num=3", "rounds=100000")
    assert process.stdout is not None
    for line in process.stdout:
        if "round 3/" in line:
            break
    time.sleep(0.2)
    kill(process.pid, signal.SIGINT)  # Ctrl-C sends it to the whole group
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in output + errors
    assert re.search(r"^fedavg after round \d+: accuracy", output, re.MULTILINE)


@pytest.mark.parametrize("words", [["lesson", "--quick"], ["nonsense"]])
def test_what_cannot_be_run_is_refused(tmp_path: Path, words: list[str]) -> None:
    process = _start(tmp_path, *words)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "error: " in errors.splitlines()[-1]


def test_a_dataset_that_is_not_there_is_told_by_fedexp(tmp_path: Path) -> None:
    process = _start(tmp_path, "mcmahan_2nn", "rounds=0")
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (2, "")
    assert errors == "fedexp: rounds must be >= 1, got 0\n"


def _results(worst_of_q1: float, rows: int = 2) -> Results:
    """Each strategy of the stragglers, each q, by two seeds; ten clients, of which one is worst."""
    runs, curves, finals, settings = (list[dict[str, object]]() for _ in range(4))
    for seed in range(rows):
        for strategy, q, ends in (
            ("fedprox", None, 0.8),
            ("fedavg", None, 0.6 + 0.3 * seed),
            ("qfedavg", 0.0, 0.7),
            ("qfedavg", 1.0, 0.7),
        ):
            run = len(runs)
            runs.append({"strategy": strategy, "seed": seed, "status": "completed"})
            settings.append({"strategy.q": q})
            base = {"run": run, "split": "test", "subset": "all", "metric": "accuracy"}
            curves += [{**base, "round": k, "value": 0.0 if k < 11 else ends} for k in range(31)]
            worst = worst_of_q1 if q == 1.0 else 0.2
            finals += [
                {**base, "split": "client_test", "client": k, "value": 0.9 if k else worst}
                for k in range(10)
            ]
    frames = [pd.DataFrame(part) for part in (runs, settings, curves, finals)]
    return Results(*frames)


def test_directions_are_told_by_seed() -> None:
    """The last 20 of 30 rounds; with seed 1, FedAvg is the better one."""
    stragglers, fair = synthetic(_results(worst_of_q1=0.3))
    assert list(stragglers.better) == pytest.approx([0.8, 0.8])
    assert list(stragglers.other) == pytest.approx([0.6, 0.9])
    assert not stragglers.passed
    assert (list(fair.better), list(fair.other)) == ([0.3, 0.3], [0.2, 0.2])
    assert fair.passed
    assert fair.row()[1] == pytest.approx(0.1)


def test_what_is_equal_or_was_never_run_is_no_direction() -> None:
    assert not synthetic(_results(worst_of_q1=0.2))[1].passed
    assert not Direction("nothing", [], []).passed


@pytest.mark.slow  # whole commands: three of them
def test_an_experiment_of_several_parts(tmp_path: Path) -> None:
    words = ["backend=inline", "rounds=1", "training.local_steps=2", "dataset.devices=10", "seed=0"]
    process = _start(tmp_path, "synthetic", *words, "clients.fraction_train=1")
    output, errors = process.communicate(timeout=300)
    assert len([line for line in output.splitlines() if line.startswith("part ")]) == 3
    pattern = r"fedexp reproduce: synthetic is 16 run\(s\), .* made 4 of it: .*\n"
    assert re.fullmatch(pattern, errors)
    found = load(next((tmp_path / "results" / "synthetic").iterdir()))
    assert [line.what[:7] for line in synthetic(found)] == ["FedProx", "q=1, q="]
    assert [len(line.better) for line in synthetic(found)] == [1, 1]
