from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.helpers import ONE_WORKER

from fedexp import __main__ as program
from fedexp import runner
from fedexp.core.options import FedexpError

SHORT = ["backend=inline", "training.local_epochs=1", "rounds=1"]
COMPARE = Path(__file__).parents[1] / "scripts" / "compare.py"


def _start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, stdout=pipe, stderr=pipe, text=True)


def _end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    output, errors = process.communicate(timeout=120)
    return process.returncode, output, errors


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, str, str]:
    """Run four jobs of which the second fails at its end: a folder is where its file must go."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "out" / "1-fedavg-s1" / "confusion.csv").mkdir(parents=True)
    sweep = ["strategy=fedavg,local_only", "seed=0,1", "hydra.sweep.dir=out"]
    return (folder, *_end(_start(folder, "-m", "fedexp", "-m", *SHORT, *sweep)))


def _accuracies(folder: Path) -> list[str]:
    summary = json.loads((folder / "summary.json").read_text())
    subsets = ("all", "1-3-7", "2-5-8", "4-6-9")
    return [f"{summary['final'][subset]['accuracy']:.3f}" for subset in subsets]


def test_a_failed_job_is_named_and_the_others_are_compared(
    sweep: tuple[Path, int, str, str],
) -> None:
    folder, code, output, errors = sweep
    assert code == 1
    jobs = ["0-fedavg-s0", "1-fedavg-s1", "2-local_only-s0", "3-local_only-s1"]
    status = {job: json.loads((folder / "out" / job / "summary.json").read_text()) for job in jobs}
    assert [status[job]["status"] for job in jobs] == ["completed", "failed", *["completed"] * 2]
    notes = [line for line in output.splitlines() if line.startswith("note: ")]
    assert len(notes) == 1
    assert notes[0].startswith("note: failed: out/1-fedavg-s1:")
    assert "out/1-fedavg-s1/confusion.csv cannot be written: Is a directory" in errors
    assert "out/1-fedavg-s1/run.log" in errors
    assert "Traceback" not in output + errors
    assert "Traceback" in (folder / "out" / "1-fedavg-s1" / "run.log").read_text()


def test_the_closing_table_holds_the_numbers_of_the_runs(
    sweep: tuple[Path, int, str, str],
) -> None:
    folder, _, output, _ = sweep
    lines = [line.split() for line in output.splitlines()]
    fedavg, seconds, clients, fairness, *each = [w for w in lines if w[:1] == ["fedavg"]]
    assert (len(seconds), len(fairness), len(each)) == (2, 3, 3)
    # One seed of fedavg is left, and its gain is over the isolated clients of that seed.
    accuracy, *subsets = _accuracies(folder / "out" / "0-fedavg-s0")
    assert fedavg[:3] == ["fedavg", "1", accuracy]
    assert fedavg[4:7] == subsets
    federated, alone = (
        json.loads((folder / "out" / job / "summary.json").read_text())
        for job in ("0-fedavg-s0", "2-local_only-s0")
    )
    gain = federated["final"]["all"]["accuracy"] - alone["final"]["all"]["accuracy"]
    assert clients[1] == f"{gain:+.3f}"
    isolated = [words for words in lines if words[:1] == ["local_only"]]
    assert isolated[0][1] == "2"


def test_compare_prints_the_table_that_the_multirun_ended_with(
    sweep: tuple[Path, int, str, str],
) -> None:
    folder, _, output, _ = sweep
    code, table, errors = _end(_start(folder, str(COMPARE), "out"))
    assert code == 1  # a run did not complete
    assert errors == ""
    assert len(table.splitlines()) > 10
    assert output.endswith(table)


def test_compare_of_a_complete_run_exits_with_0(sweep: tuple[Path, int, str, str]) -> None:
    folder = sweep[0]
    code, table, _ = _end(_start(folder, str(COMPARE), "out/0-fedavg-s0"))
    assert code == 0
    assert _accuracies(folder / "out" / "0-fedavg-s0")[0] in table


@pytest.mark.slow  # two whole commands
def test_two_runs_at_the_same_time_get_folders_of_their_own(tmp_path: Path) -> None:
    command = ["-m", "fedexp", "+debug=smoke"]
    both = [_start(tmp_path, *command) for _ in range(2)]
    for process in both:
        code, output, errors = _end(process)
        assert (code, errors) == (0, ""), output
    folders = list((tmp_path / "results" / "smoke").iterdir())
    assert len(folders) == 2
    left, right = ((folder / "metrics.csv").read_bytes() for folder in folders)
    assert left == right
    for folder in folders:
        assert json.loads((folder / "summary.json").read_text())["status"] == "completed"
        assert "round 1/1" in (folder / "run.log").read_text()


def test_a_ray_that_cannot_start_is_left_to_the_jobs_to_report(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: object) -> None:
        raise FedexpError("no worker would ever fit")

    monkeypatch.setattr("fedexp.backends.ray_session.start_ray", refuse)
    monkeypatch.setattr(runner, "warm_up", lambda _: None)
    program._start_up([ONE_WORKER, ONE_WORKER])
    with pytest.raises(FedexpError, match="no worker would ever fit"):
        program._start_up([ONE_WORKER])
