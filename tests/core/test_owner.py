"""Who writes a folder: one process at a time, and whether it is still there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedexp.core import owner
from fedexp.core.owner import TakenError

TAKE = """
import sys, time
from pathlib import Path
from fedexp.core import owner
owner.take(Path(sys.argv[1]))
print("taken", flush=True)
time.sleep(60)
"""


@pytest.fixture
def neighbour(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Return a process that owns the folder."""
    command = [sys.executable, "-c", TAKE, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "taken\n"
        yield process
        process.kill()


def _written(folder: Path, **changes: Any) -> dict[str, Any]:
    """Let the folder's owner be this process, but for some facts."""
    owner.take(folder).give_back()
    hold = owner.take(folder)
    content = {**json.loads((folder / owner.FILE).read_text()), **changes}
    hold.give_back()
    (folder / owner.FILE).write_text(json.dumps(content))
    return content


def test_a_folder_is_taken_and_given_back(tmp_path: Path) -> None:
    assert not owner.is_owned(tmp_path)
    hold = owner.take(tmp_path)
    assert owner.is_owned(tmp_path)
    with pytest.raises(TakenError, match=f"{tmp_path} .* process {os.getpid()}"):
        owner.take(tmp_path)
    hold.give_back()
    assert list(tmp_path.iterdir()) == []
    owner.take(tmp_path).give_back()


def test_another_process_keeps_it_until_it_is_gone(
    tmp_path: Path, neighbour: subprocess.Popen[str]
) -> None:
    with pytest.raises(TakenError, match=f"process {neighbour.pid}"):
        owner.take(tmp_path)
    neighbour.kill()
    while owner.is_owned(tmp_path):  # dead, and not waited for: a zombie is none
        time.sleep(0.01)
    neighbour.wait()
    hold = owner.take(tmp_path)
    content = owner.read(tmp_path)
    assert content is not None
    assert content["pid"] == os.getpid()
    hold.give_back()


def test_what_somebody_else_took_over_is_not_given_back(tmp_path: Path) -> None:
    hold = owner.take(tmp_path)
    (tmp_path / owner.FILE).write_text('{"pid": 1}')
    hold.give_back()
    assert owner.read(tmp_path) == {"pid": 1}


@pytest.mark.parametrize(
    ("change", "there"),
    [
        ({}, True),
        ({"started": "1"}, False),  # another process has the number by now
        ({"boot": "before"}, False),  # the machine was started again
        ({"pid": None}, False),
        ({"pid": 2**22 + 1}, False),
    ],
)
def test_this_machine_is_asked(tmp_path: Path, change: dict[str, Any], there: bool) -> None:
    _written(tmp_path, **change)
    assert owner.is_owned(tmp_path) is there


@pytest.mark.parametrize("elsewhere", [{"host": "other"}, {"namespace": "pid:[1]"}])
def test_elsewhere_the_heartbeat_counts(tmp_path: Path, elsewhere: dict[str, str]) -> None:
    _written(tmp_path, **elsewhere)
    assert owner.is_owned(tmp_path)
    silent = time.time() - owner.SILENCE - 1
    os.utime(tmp_path / owner.FILE, (silent, silent))
    assert not owner.is_owned(tmp_path)


@pytest.mark.parametrize("skew", [-3600.0, 3600.0])
def test_a_file_servers_clock_may_be_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skew: float
) -> None:
    monkeypatch.setattr(owner, "clock_of", lambda _: time.time() + skew)
    _written(tmp_path, host="other")
    beat = time.time() + skew
    os.utime(tmp_path / owner.FILE, (beat, beat))
    with pytest.raises(owner.TakenError):
        owner.take(tmp_path)
    beat -= owner.SILENCE + 1
    os.utime(tmp_path / owner.FILE, (beat, beat))
    owner.take(tmp_path).give_back()


def test_the_clock_of_a_folder_is_that_of_its_files(tmp_path: Path) -> None:
    before = time.time() - 1  # file systems count coarsely
    assert before < owner.clock_of(tmp_path) < time.time() + 1
    assert list(tmp_path.iterdir()) == []


def test_a_lost_machine_is_waited_for_and_then_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, "SILENCE", 0.8)
    _written(tmp_path, host="lost")
    said: list[str] = []
    owner.wait_for(tmp_path, said.append)
    assert ["lost" in line for line in said] == [True]
    owner.take(tmp_path).give_back()


def test_a_machine_that_shows_a_sign_of_life_keeps_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, "SILENCE", 2.0)
    _written(tmp_path, host="other")
    beat = threading.Timer(0.3, lambda: os.utime(tmp_path / owner.FILE))
    beat.start()
    started = time.monotonic()
    owner.wait_for(tmp_path, lambda _: None)
    assert time.monotonic() - started < 1.9
    with pytest.raises(owner.TakenError):
        owner.take(tmp_path)
    beat.join()


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"pid": "1"}'])
def test_a_damaged_file_owns_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / owner.FILE).write_text(content)
    assert not owner.is_owned(tmp_path)


def test_the_heart_beats_until_it_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, "BEAT", 0.01)
    others = set(threading.enumerate())  # of holds that other tests left to the end of the process
    hold = owner.take(tmp_path)
    (heart,) = set(threading.enumerate()) - others
    os.utime(tmp_path / owner.FILE, (0, 0))
    while owner.last_beat(tmp_path) == 0:
        time.sleep(0.01)
    hold.give_back()
    heart.join(5)
    assert not heart.is_alive()


def test_of_many_that_come_at_once_one_gets_it(tmp_path: Path) -> None:
    _written(tmp_path, started="1")  # left by a process that was killed
    code = TAKE.replace("time.sleep(60)", "sys.stdin.read()")
    command = [sys.executable, "-c", code, str(tmp_path)]
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    runners = [subprocess.Popen(command, text=True, **pipes) for _ in range(4)]
    first = [process.stdout.readline() for process in runners if process.stdout]
    for process in runners:
        process.communicate()
    assert sorted(first) == ["", "", "", "taken\n"]


def test_what_was_reserved_is_taken_once(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "run"
    owner.reserve(folder)
    with pytest.raises(TakenError):
        owner.reserve(folder)
    hold = owner.take(folder)
    with pytest.raises(TakenError):
        owner.take(folder)
    owner.release()  # not reserved any more
    assert owner.is_owned(folder)
    hold.give_back()
    owner.reserve(folder)
    owner.release()
    assert not owner.is_owned(folder)
