"""Jobs of a multirun beside one another."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest

from fedexp import launching
from fedexp.config import beside as module
from fedexp.config.beside import Beside
from fedexp.config.composition import Job, compose_config, plan
from fedexp.core import forked

JOBS = [(k, [f"seed={k}"]) for k in range(4)]


def _run(beside: Beside) -> tuple[dict[int, float | None], Sequence[object], list[int]]:
    announced: list[int] = []
    found, left = beside.run(
        JOBS, lambda number, _: announced.append(number), lambda number, _: float(os.getpid())
    )
    return found, left, announced


def test_all_jobs_run_in_processes_where_the_first_is_short() -> None:
    found, left, announced = _run(Beside(2, True, lambda: None, print))
    assert (sorted(found), list(left), announced) == ([0, 1, 2, 3], [], [0, 1, 2, 3])
    assert os.getpid() not in found.values()


def test_jobs_are_left_where_the_first_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHORT", 0.0)
    found, left, announced = _run(Beside(2, True, lambda: None, print))
    assert (list(found), left, announced) == ([0], JOBS[1:], [0])


def test_who_asks_has_jobs_beside_one_another_however_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHORT", 0.0)
    found, left, _ = _run(Beside(2, False, lambda: None, print))
    assert (sorted(found), list(left)) == ([0, 1, 2, 3], [])


def test_a_job_without_a_result_is_told() -> None:
    lost: list[tuple[int, int]] = []
    beside = Beside(2, False, lambda: None, lambda number, code: lost.append((number, code)))
    beside.run(JOBS, lambda *_: None, lambda number, _: None if number == 2 else 0.0)
    assert lost == [(2, 0)]


def test_a_job_that_says_that_it_failed_has_no_result() -> None:
    lost: list[int] = []
    failures: list[int] = []

    def job(number: int, _: Sequence[str]) -> float:
        failures.extend([number] * (number == 1))
        return 0.0

    def failed() -> bool:
        found = bool(failures)
        failures.clear()
        return found

    beside = Beside(1, False, lambda: None, lambda number, _: lost.append(number), failed)
    found, _ = beside.run(JOBS, lambda *_: None, job)
    assert (lost, found) == ([1], {0: 0.0, 1: None, 2: 0.0, 3: 0.0})


def _jobs(*words: str) -> list[Job]:
    return plan(list(words), multirun=True)


@pytest.fixture(autouse=True)
def four_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "usable_cpus", lambda: 4)
    monkeypatch.setattr(launching, "usable_memory", lambda: 64 * 2**30)
    monkeypatch.setattr(forked, "has_trained", False)
    monkeypatch.setattr(forked, "is_program", True)


@pytest.mark.parametrize(
    ("words", "processes", "if_short"),
    [
        (("seed=range(6)",), 4, True),
        (("seed=range(6)", "backend.threads=2"), 2, True),
        (("seed=range(3)",), None, None),  # the first is alone, and the others would be two
        (("seed=range(3)", "backend.jobs=2"), 2, False),
        (("seed=range(6)", "backend.jobs=1"), None, None),
        (("seed=range(6)", "backend.workers=2"), None, None),
        (("seed=range(6)", "backend=inline"), None, None),
        (("seed=range(6)", "backend=inline,ray"), None, None),
        (("seed=range(6)", "mode=partition"), None, None),
    ],
)
def test_how_many_jobs_run_beside_one_another(
    words: Sequence[str], processes: int | None, if_short: bool | None
) -> None:
    found = launching.beside(_jobs(*words), print, bool)
    assert (found and found.processes, found and found.if_short) == (processes, if_short)


def test_jobs_need_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "usable_memory", lambda: 5 * 2**30)
    found = launching.beside(_jobs("seed=range(6)"), print, bool)
    assert found is not None
    assert found.processes == 2
    monkeypatch.setattr(launching, "usable_memory", lambda: 3 * 2**30)
    assert launching.beside(_jobs("seed=range(6)"), print, bool) is None


def test_runs_with_workers_have_no_jobs_beside_them() -> None:
    with pytest.raises(Exception, match=r"backend\.jobs=2 leaves clients in the process"):
        compose_config(["backend.jobs=2", "backend.workers=2"])
