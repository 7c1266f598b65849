"""A disk that is full, and folders and files that somebody removes while a run goes on."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.programs import program

from fedexp import runner
from fedexp.config.composition import compose_config
from fedexp.core import checkpoints
from fedexp.core.files import write_whole
from fedexp.core.logs import RunLog
from fedexp.core.tables import Table
from fedexp.federation.events import RunInfo
from fedexp.tracking.run_folder import RunFolder

B = ("backend=inline", "model=logistic", "rounds=2", "training.local_steps=2")
FULL = "No space left on device"


def _run(folder: Path, *overrides: str) -> bool:
    return runner.run_logged(RunInfo(compose_config([*B, *overrides]), folder))


def _status(folder: Path) -> str:
    return str(json.loads((folder / "summary.json").read_text())["status"])


class Disk:
    """Lets the writes of a run pass until it is full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.writes = 0
        self.room: int | None = None
        for owner, name in ((os, "fsync"), (Table, "_write")):
            monkeypatch.setattr(owner, name, self._filling(getattr(owner, name)))

    def _filling(self, write: Callable[..., Any]) -> Callable[..., Any]:
        def filling(*arguments: Any) -> Any:
            self.writes += 1
            if self.room is not None and self.writes > self.room:
                raise OSError(errno.ENOSPC, FULL)
            return write(*arguments)

        return filling


@pytest.mark.slow  # a run for each of its 40 writes
def test_a_disk_that_is_full_at_any_write_fails_the_run_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = Disk(monkeypatch)
    assert _run(tmp_path / "whole")
    writes = disk.writes
    assert writes > 20
    for room in range(writes):
        folder = tmp_path / str(room)
        disk.writes, disk.room = 0, room
        capsys.readouterr()
        assert not _run(folder)
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"fedexp: run failed: {folder}")
        assert f"cannot be written: {FULL}" in line
        assert list(folder.rglob("*.partial")) == []
        _, problems = checkpoints.latest(folder)
        assert problems == []  # the earlier one is as it was


def test_a_disk_that_is_full_leaves_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, content: bytes) -> None:
        if path.name == "round-2.safetensors":
            raise OSError(errno.ENOSPC, FULL, str(path))
        write_whole(path, content)

    monkeypatch.setattr(checkpoints, "write_whole", full)
    assert not _run(tmp_path / "run", "checkpoint.every=1")
    (line,) = capsys.readouterr().err.splitlines()
    assert "round-2.safetensors cannot be written: No space left on device" in line
    state, problems = checkpoints.latest(tmp_path / "run")
    assert state is not None
    assert (state["round"], problems) == (1, [])
    assert _status(tmp_path / "run") == "failed"


@pytest.mark.parametrize("moment", ["round", "end"])
@pytest.mark.parametrize(
    ("act", "part"),
    [
        (shutil.rmtree, ""),
        (lambda run: run.rename(run.with_name("elsewhere")), ""),
        (lambda run: (run / "metrics.csv").unlink(), "metrics.csv was removed"),
    ],
)
def test_what_is_removed_in_mid_run_is_a_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    moment: str,
    act: Callable[[Path], object],
    part: str,
) -> None:
    told, folder = getattr(RunFolder, moment), tmp_path / "run"

    def meddled(self: RunFolder, what: Any) -> None:
        if getattr(what, "round", 1) == 1 and (folder / "metrics.csv").exists():
            act(folder)
        told(self, what)

    monkeypatch.setattr(RunFolder, moment, meddled)
    assert not _run(folder)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"fedexp: run failed: {folder}/")
    assert ".partial" not in line
    assert part in line
    if part:
        assert _status(folder) == "failed"


def test_a_log_that_cannot_be_written_is_no_concern_of_the_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, FULL)

    monkeypatch.setattr(RunLog, "_open", full)  # opened at the first line
    monkeypatch.setattr(RunLog, "flush", full)
    (tmp_path / "config.yaml").mkdir()
    monkeypatch.setattr(runner, "RunLog", lambda path: RunLog(path, delay=True))
    assert not _run(tmp_path)
    (line,) = capfd.readouterr().err.splitlines()
    assert "config.yaml cannot be written" in line


def test_an_error_says_which_file_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, FULL)

    (tmp_path / "file").write_bytes(b"before")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=FULL) as caught:
        write_whole(tmp_path / "file", b"after")
    assert caught.value.filename == str(tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"before"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Return a function that makes a disk of so many KiB, where the machine lets us."""
    mounted: list[Path] = []

    def make(size: int) -> Path:
        folder = tmp_path / f"disk-{size}"
        folder.mkdir()
        words = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(folder)]
        if shutil.which("mount") is None or subprocess.run(words, capture_output=True).returncode:
            pytest.skip("needs the right to mount a small disk")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow  # three whole multiruns
@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
@pytest.mark.parametrize("size", [16, 100, 400])
def test_a_multirun_on_a_small_disk_goes_on_and_ends_with_its_table(
    tmp_path: Path, small_disk: Callable[[int], Path], size: int
) -> None:
    disk = small_disk(size)
    found = program(tmp_path, "-m", *B, "rounds=1", "seed=0,1,2", f"hydra.sweep.dir={disk}/out")
    assert found.returncode == 1
    assert "Traceback" not in found.stdout + found.stderr
    lines = found.stderr.splitlines()
    assert all(line.startswith("fedexp: ") and FULL in line for line in lines)
    complete = sum(_ended(folder) for folder in (disk / "out").iterdir() if folder.is_dir())
    assert complete in ((1, 2) if size == 400 else (0,))
    assert sum("run failed: " in line for line in lines) == 3 - complete
    table = [line.split() for line in found.stdout.splitlines()]
    assert any(words[:2] == ["fedavg", str(complete)] for words in table) == bool(complete)


def _ended(folder: Path) -> bool:
    return (folder / "summary.json").is_file() and _status(folder) == "completed"
