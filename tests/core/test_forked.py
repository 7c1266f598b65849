"""Jobs in processes that are forked from this one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedexp.core import forked
from fedexp.core.forked import Crew

Ended = list[tuple[int, float | None, int]]


def _crew(size: int, job: object) -> tuple[Crew, Ended]:
    found: Ended = []
    return Crew(size, job, lambda *one: found.append(one)), found  # type: ignore[arg-type]


def test_jobs_run_in_processes_that_go_on_to_the_next() -> None:
    crew, found = _crew(2, lambda number: float(os.getpid()))
    for number in range(6):
        crew.start(number)
    crew.finish()
    assert sorted(number for number, _, _ in found) == list(range(6))
    pids = {value for _, value, _ in found}
    assert len(pids) <= 2
    assert float(os.getpid()) not in pids


def test_pipes_wait_whatever_sockets_do() -> None:
    def job(number: int) -> float:
        time.sleep(0.1)
        return float(number)

    socket.setdefaulttimeout(1.0)  # as code that downloads may
    try:
        crew, found = _crew(1, job)
        for number in range(2):
            crew.start(number)
        crew.finish()
    finally:
        socket.setdefaulttimeout(None)
    assert found == [(0, 0.0, 0), (1, 1.0, 0)]


def test_a_signal_while_a_process_is_forked_counts_once_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Python swallows what is raised there, where it puts logging's locks in order.
    registered: list[int] = []

    def struck() -> None:
        if not registered:
            registered.append(1)
            signal.raise_signal(signal.SIGINT)

    os.register_at_fork(after_in_parent=struck)
    crew, found = _crew(1, float)
    with pytest.raises(KeyboardInterrupt):
        crew.start(0)
    assert registered
    crew.start(1)
    crew.finish()
    assert found == [(1, 1.0, 0)]


def test_no_more_jobs_run_at_a_time_than_may(tmp_path: Path) -> None:
    def job(number: int) -> float:
        (tmp_path / str(number)).touch()
        time.sleep(0.05)
        at_once = len(list(tmp_path.iterdir()))
        (tmp_path / str(number)).unlink()
        return float(at_once)

    crew, found = _crew(3, job)
    for number in range(9):
        crew.start(number)
    crew.finish()
    assert max(value or 0.0 for _, value, _ in found) == 3.0


def test_a_process_that_dies_costs_its_job_alone() -> None:
    def job(number: int) -> float | None:
        if number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return None if number == 2 else float(number)

    crew, found = _crew(1, job)
    for number in range(4):
        crew.start(number)
    crew.finish()
    assert found == [(0, 0.0, 0), (1, None, -signal.SIGKILL), (2, None, 0), (3, 3.0, 0)]


def test_what_runs_when_it_is_stopped_ends_in_order(tmp_path: Path) -> None:
    def job(number: int) -> float:
        try:
            (tmp_path / f"begun-{number}").touch()
            time.sleep(60)
        except KeyboardInterrupt:
            (tmp_path / f"ended-{number}").touch()
            raise
        return 0.0

    crew, _ = _crew(2, job)
    crew.start(0)
    crew.start(1)
    while len(list(tmp_path.glob("begun-*"))) < 2:
        time.sleep(0.01)
    crew.stop()
    assert sorted(path.name for path in tmp_path.glob("ended-*")) == ["ended-0", "ended-1"]


def test_a_process_that_died_between_jobs_costs_one_job() -> None:
    crew, found = _crew(1, lambda number: float(os.getpid()))
    crew.start(0)
    crew.wait()
    ((_, pid, _),) = found
    assert pid is not None
    os.kill(int(pid), signal.SIGKILL)
    time.sleep(0.2)
    for number in (1, 2):
        crew.start(number)
    crew.finish()
    lost = [(number, value is None) for number, value, _ in found]
    assert lost == [(0, False), (1, True), (2, False)]


SCRIPT = """
import sys, time
from pathlib import Path
from fedexp.core.forked import Crew

def job(number):
    try:
        Path(sys.argv[1], "begun").touch()
        time.sleep(60)
    except KeyboardInterrupt:
        Path(sys.argv[1], "ended").touch()
        raise

crew = Crew(1, job, print)
crew.start(0)
crew.finish()
"""


def test_a_process_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path)])
    until = time.monotonic() + 30
    while not (tmp_path / "begun").exists():
        assert time.monotonic() < until
        time.sleep(0.01)
    parent.kill()
    parent.wait()
    while not (tmp_path / "ended").exists():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_nothing_is_forked_once_models_were_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(forked, "has_trained", False)
    monkeypatch.setattr(forked, "is_program", True)
    assert forked.can_fork()
    monkeypatch.setattr(forked, "has_trained", True)
    assert not forked.can_fork()
