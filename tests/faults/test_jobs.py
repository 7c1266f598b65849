"""Programs that are stopped, started again or started twice: a scheduler's job, a script."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import instants
from support.helpers import summary
from support.programs import program

from fedexp.analysis.results import load
from fedexp.core import owner

pytestmark = pytest.mark.slow  # whole programs

GUIDE = Path(__file__).parents[2] / "docs" / "reliability.md"
SMALL = ["backend=inline", "model=logistic", "training.local_steps=2", "checkpoint.every=1"]

SCRIPT = """
from dataclasses import dataclass
import numpy as np
from fedexp import Server, Setup, Strategy, main, strategies

@strategies.register
@dataclass(frozen=True)
class Mine(Strategy):
    name: str = "mine"

    def server(self, setup: Setup) -> Server:
        return Noisy()

class Noisy(Server):
    def __init__(self):
        self.generator = np.random.default_rng(3)

    def combine(self, t, model, updates):
        mean = updates.mean()
        return {k: a + np.float32(1e-3 * self.generator.random()) for k, a in mean.items()}

if __name__ == "__main__":
    main()
"""


def _wait_for(condition: object, seconds: float = 120) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


def _rows(path: Path) -> int:
    return len(path.read_bytes().splitlines()) if path.is_file() else 0


def _same(one: Path, other: Path) -> bool:
    hashes = [summary(folder)["model_sha256"] for folder in (one, other)]
    tables = [(folder / "metrics.csv").read_bytes() for folder in (one, other)]
    return hashes[0] == hashes[1] and tables[0] == tables[1]


def test_a_job_that_a_scheduler_stops_and_starts_again(tmp_path: Path) -> None:
    (script,) = re.findall(r"```bash\n(#!/bin/bash\n.*?)```", GUIDE.read_text(), re.S)
    command = "strategy=fedavg,fedadam seed=0,1,2"
    assert command in script
    small = " ".join([*SMALL, "rounds=12", "strategy=fedavg,fedadam"])
    (tmp_path / "job.sh").write_text(script.replace(command, small))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    job = {"args": ["bash", "job.sh"], "cwd": tmp_path, "env": {**os.environ, "PATH": path}}
    first = subprocess.Popen(**job, stdout=subprocess.DEVNULL)  # type: ignore[call-overload]
    sweep = tmp_path / "results" / "night"
    _wait_for(lambda: _rows(sweep / "0-fedavg-s0" / "metrics.csv") > 4)
    first.send_signal(signal.SIGTERM)
    assert first.wait(120) == 143
    assert not (sweep / owner.FILE).exists()
    assert load(sweep).runs["status"].tolist()[-1] == "interrupted"
    again = subprocess.run(**job, capture_output=True, text=True, check=False)  # type: ignore[call-overload]
    assert again.returncode == 0, again.stderr
    assert any(line.startswith("fedadam ") for line in again.stdout.splitlines())
    whole = program(tmp_path, "-m", *small.split(), "hydra.sweep.dir=whole")
    assert whole.returncode == 0, whole.stderr
    for name in ("0-fedavg-s0", "1-fedadam-s0"):
        assert _same(sweep / name, tmp_path / "whole" / name)


def test_a_run_of_a_script_is_resumed_by_the_script(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(SCRIPT)
    words = [*SMALL, "strategy=mine"]
    assert program(tmp_path, "mine.py", *words, "rounds=3", "hydra.run.dir=a").returncode == 0
    assert program(tmp_path, "mine.py", *words, "rounds=5", "hydra.run.dir=b").returncode == 0
    alone = program(tmp_path, "resume", "a", "rounds=5")
    assert alone.returncode == 2
    assert "strategy=mine" in alone.stderr
    assert program(tmp_path, "mine.py", "resume", "a", "rounds=5").returncode == 0
    assert _same(tmp_path / "a", tmp_path / "b")
    (tmp_path / "mine.py").write_text(SCRIPT.replace("1e-3", "2e-3"))
    changed = program(tmp_path, "mine.py", "resume", "a", "rounds=7")
    assert changed.returncode == 2
    assert "strategy=mine" in changed.stderr


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    words = [*SMALL, "rounds=5000", "hydra.run.dir=run"]
    first = subprocess.Popen(
        [sys.executable, "-m", "fedexp", *words], cwd=tmp_path, stdout=subprocess.DEVNULL
    )
    try:
        _wait_for(lambda: _rows(tmp_path / "run" / "metrics.csv") > 4)
        assert load(tmp_path / "run").runs["status"].tolist() == ["running"]
        for other in (words, ["resume", "run"]):
            second = program(tmp_path, *other)
            assert second.returncode == 2
            assert len(second.stderr.splitlines()) == 1
    finally:
        first.kill()
        first.wait()
    assert load(tmp_path / "run").runs["status"].tolist() == ["killed"]
    compared = program(tmp_path, "compare", "run")
    assert "killed" in compared.stdout + compared.stderr


@pytest.mark.parametrize(("backend", "kills"), [("inline", 20), ("ray", 3), ("flower", 2)])
def test_kills_at_random_instants_change_no_bit(tmp_path: Path, backend: str, kills: int) -> None:
    # A process of its own: one that has trained has threads, and must not be forked.
    words = [sys.executable, instants.__file__, f"--kills={kills}", f"--backends={backend}"]
    words += [f"--folder={tmp_path}", *(["--fresh"] if backend != "inline" else [])]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(rf"^(\d+) kills on {backend}: 0 differ", done.stdout, re.MULTILINE)
    assert found is not None
    assert int(found[1]) >= kills
