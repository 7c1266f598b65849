"""Jobs of a multirun beside one another, as a user has them: the same bits, and ends in order."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.programs import program

pytestmark = pytest.mark.slow  # each imports torch in a process of its own, and trains

SHORT = ("training.local_epochs=1", "rounds=2", "hydra.sweep.dir=out")


def _summaries(folder: Path) -> dict[str, dict[str, object]]:
    files = sorted((folder / "out").glob("*/summary.json"))
    return {file.parent.name: json.loads(file.read_text()) for file in files}


def test_jobs_beside_one_another_are_those_of_one_after_another(tmp_path: Path) -> None:
    words = ("-m", "strategy=fedavg,scaffold,local_only", "seed=0,1", *SHORT)
    found = {}
    for name, jobs in (("beside", "2"), ("alone", "1")):
        folder = tmp_path / name
        folder.mkdir()
        done = program(folder, *words, f"backend.jobs={jobs}")
        assert (done.returncode, done.stderr) == (0, "")
        found[name] = _summaries(folder)
    assert len(found["alone"]) == 6
    for job, alone in found["alone"].items():
        beside = found["beside"][job]
        assert (beside["status"], beside["model_sha256"]) == ("completed", alone["model_sha256"])
        files = [tmp_path / name / "out" / job / "metrics.csv" for name in found]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_a_job_that_fails_beside_others_is_named(tmp_path: Path) -> None:
    (tmp_path / "out" / "2-fedavg-s2" / "confusion.csv").mkdir(parents=True)
    (tmp_path / "out" / "3-fedavg-s3").write_text("no folder can be made here")
    done = program(tmp_path, "-m", "seed=range(5)", *SHORT, "backend.jobs=2")
    assert done.returncode == 1
    assert "out/2-fedavg-s2/confusion.csv cannot be written" in done.stderr
    assert "3-fedavg-s3 cannot be made" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    status = {job: one["status"] for job, one in _summaries(tmp_path).items()}
    completed = dict.fromkeys(("0-fedavg-s0", "1-fedavg-s1", "4-fedavg-s4"), "completed")
    assert status == {**completed, "2-fedavg-s2": "failed"}


@pytest.mark.parametrize(
    ("how", "code"), [("group", -signal.SIGINT), ("parent", -signal.SIGTERM), ("kill", None)]
)
def test_jobs_beside_one_another_end_together(tmp_path: Path, how: str, code: int | None) -> None:
    words = ["-m", "seed=range(4)", *SHORT, "rounds=2000", "backend.jobs=2"]
    command = [sys.executable, "-m", "fedexp", *words]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=_listen_to_interrupts,
    )
    folder, until = tmp_path / "out", time.monotonic() + 120
    while len(list(folder.glob("*/metrics.csv"))) < 2:
        assert time.monotonic() < until
        time.sleep(0.05)
    time.sleep(0.5)
    if how == "group":  # as a terminal does for Ctrl-C
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGTERM if how == "parent" else signal.SIGKILL)
    _, complaints = process.communicate(timeout=60)
    if code is not None:
        assert (process.returncode, "Traceback" in complaints) == (128 - code, False)
    while any(folder.glob("*/owner.json")):  # of a parent that was killed, they end soon after it
        assert time.monotonic() < until
        time.sleep(0.05)
    status = [one["status"] for one in _summaries(tmp_path).values()]
    assert status == ["interrupted", "interrupted"]


def _listen_to_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
