"""Checkpoints: whole or not at all, the last two kept, a damaged one passed over."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedexp.core.checkpoints import FOLDER, SHARE, Checkpoints, latest
from fedexp.core.options import FedexpError


def _state(server_round: int) -> Mapping[str, Any]:
    return {"round": server_round, "w": np.full(3, server_round, np.float32)}


def _saved(folder: Path, *rounds: int, every: int | None = 1) -> Checkpoints:
    checkpoints = Checkpoints(folder, every)
    for number in rounds:
        checkpoints.save(number, lambda number=number: _state(number))  # type: ignore[misc]
    return checkpoints


def _rounds(folder: Path) -> list[int]:
    return sorted(int(path.stem.split("-")[1]) for path in (folder / FOLDER).iterdir())


def _damage(folder: Path, server_round: int) -> Path:
    path = folder / FOLDER / f"round-{server_round}.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    return path


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    _saved(tmp_path, 1, 2, 9, 10)
    assert _rounds(tmp_path) == [9, 10]
    state, problems = latest(tmp_path)
    assert state is not None
    assert (state["round"], state["w"].tolist(), problems) == (10, [10.0] * 3, [])


def test_a_folder_without_any(tmp_path: Path) -> None:
    assert latest(tmp_path) == (None, [])


def test_of_a_damaged_one_the_one_before_is_used(tmp_path: Path) -> None:
    _saved(tmp_path, 4, 5)
    damaged = _damage(tmp_path, 5)
    state, problems = latest(tmp_path)
    assert state is not None
    assert state["round"] == 4
    assert [str(damaged) in line for line in problems] == [True]


def test_where_all_are_damaged_all_are_named(tmp_path: Path) -> None:
    _saved(tmp_path, 4, 5)
    named = [str(_damage(tmp_path, number)) for number in (5, 4)]
    state, problems = latest(tmp_path)
    assert state is None
    assert [name in line for name, line in zip(named, problems, strict=True)] == [True, True]


@pytest.mark.parametrize(("last_round", "left"), [(0, [1]), (48, [48, 49])])
def test_damaged_ones_do_not_take_the_places_of_new_ones(
    tmp_path: Path, last_round: int, left: list[int]
) -> None:
    _saved(tmp_path, 48, 50)
    (tmp_path / FOLDER / ".round-51.safetensors.partial").write_bytes(b"cut off")
    again = Checkpoints(tmp_path, 1)
    again.begin(last_round)
    again.save(last_round + 1, lambda: _state(last_round + 1))
    assert _rounds(tmp_path) == left
    found, problems = latest(tmp_path)
    assert found is not None
    assert (found["round"], problems) == (last_round + 1, [])


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_one_that_cannot_be_written_leaves_the_earlier_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    checkpoints = _saved(tmp_path, 1, 2)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    if step == "write":
        monkeypatch.setattr("fedexp.core.checkpoints.write_whole", full)
    else:
        monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(3, lambda: _state(3))
    monkeypatch.undo()
    assert _rounds(tmp_path) == [1, 2]
    found, problems = latest(tmp_path)
    assert found is not None
    assert (found["round"], problems) == (2, [])


def test_rounds_between_two(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, 3)
    assert [checkpoints.is_due(number) for number in (1, 2, 3)] == [False, False, True]
    checkpoints.save(3, lambda: _state(3))
    assert [checkpoints.is_due(number) for number in (4, 5, 6)] == [False, False, True]
    checkpoints.begin(5)
    assert [checkpoints.is_due(number) for number in (6, 7, 8)] == [False, False, True]
    assert not Checkpoints(tmp_path, 0).is_due(1000)


def test_spaced_ones_take_their_share_of_the_time(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, None)
    assert checkpoints.is_due(1)
    start = time.monotonic()

    def slow() -> Mapping[str, Any]:
        time.sleep(0.002)  # gathering it takes its time, too
        return _state(1)

    checkpoints.save(1, slow)
    took = time.monotonic() - start
    assert not checkpoints.is_due(2)
    while not checkpoints.is_due(2):
        time.sleep(0.001)
    assert time.monotonic() - start >= 0.002 / SHARE
    assert time.monotonic() - start <= 2 * took / SHARE + 1


def test_one_that_cannot_be_read_now_is_not_thrown_away(tmp_path: Path) -> None:
    _saved(tmp_path, 4, 5)
    paths = [tmp_path / FOLDER / f"round-{number}.safetensors" for number in (4, 5)]

    def unreadable(path: Path) -> None:
        path.unlink()
        path.mkdir()  # the same to root, whom no mode would keep out

    unreadable(paths[1])
    state, problems = latest(tmp_path)
    assert state is not None
    assert (state["round"], len(problems)) == (4, 1)
    unreadable(paths[0])
    with pytest.raises(FedexpError, match=re.escape(str(paths[0]))):
        latest(tmp_path)
