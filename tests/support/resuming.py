"""Runs that are cut off: folders as a kill at some instant would leave them, and how they go on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from fedexp import resume, runner
from fedexp.config.composition import compose_config
from fedexp.core import owner, signals
from fedexp.core.checkpoints import Checkpoints
from fedexp.experiment import run_experiment
from fedexp.federation.events import RunInfo
from fedexp.tracking.run_folder import RunFolder
from support.helpers import summary

SMALL = (
    "backend=inline",
    "model=logistic",
    "training.local_steps=2",
    "training.batch_size=16",
    "rounds=4",
    "checkpoint.every=1",
)


def run_small(folder: Path, *overrides: str) -> Path:
    """Run a small experiment in this process, without pictures; return its folder."""
    lines = [*SMALL, *overrides]
    with _without_pictures():
        run_experiment(RunInfo(compose_config(lines), folder, lines))
    return folder


def _without_pictures() -> Any:
    return mock.patch("fedexp.federation.conclusion.drawn", return_value=({}, []))


def killed_at(moment: str, folder: Path, *overrides: str) -> tuple[Path, Path]:
    """Run a small experiment, and keep what a kill at a moment would have left.

    Args:
        moment: ``begun``, ``told K`` (round K's rows are written, its checkpoint is not), ``kept K``.
        folder: A folder for both.
        overrides: Of the experiment.

    Returns:
        The folder of the whole run, and what the kill left.
    """
    whole, cut = folder / "whole", folder / "cut"

    def copy(now: str) -> None:
        if now == moment:
            shutil.copytree(whole, cut)
            orphan(cut)

    with (
        _after(RunFolder, "begin", lambda *_: copy("begun")),
        _after(RunFolder, "round", lambda report: copy(f"told {report.round}")),
        _after(Checkpoints, "save", lambda number, _: copy(f"kept {number}")),
    ):
        run_small(whole, *overrides)
    assert cut.is_dir(), f"there was no moment {moment!r}"
    return whole, cut


def orphan(folder: Path) -> None:
    """Let the process that owns a folder be one that is gone."""
    path = folder / owner.FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), "started": "long ago"}))


def resumed(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    """Do ``fedexp resume WORDS`` in this process; return exit code, output and error lines."""
    capsys.readouterr()

    def leave(code: int) -> None:
        owner.release()
        raise SystemExit(code)

    with (
        mock.patch.object(runner, "leave", leave),
        mock.patch.object(signals, "stop_on_signals"),
        _without_pictures(),
        pytest.raises(SystemExit) as ended,
    ):
        resume.resume_program([str(word) for word in words])
    told = capsys.readouterr()
    code = ended.value.code
    assert isinstance(code, int)
    return code, told.out, told.err


def assert_same_run(one: Path, other: Path) -> None:
    """Require that two runs came to the same bits."""
    first, second = summary(one), summary(other)
    for found in (first, second):
        found.pop("seconds")
    assert first == second
    assert (one / "metrics.csv").read_bytes() == (other / "metrics.csv").read_bytes()
    assert (one / "failures.csv").read_bytes() == (other / "failures.csv").read_bytes()
    models = [path.relative_to(one) for path in sorted(one.rglob("*.safetensors"))]
    for name in (name for name in models if "checkpoint" not in name.parts):
        assert (one / name).read_bytes() == (other / name).read_bytes()
    assert (one / "confusion.csv").read_bytes() == (other / "confusion.csv").read_bytes()
    assert (one / "partition.json").read_bytes() == (other / "partition.json").read_bytes()


@contextmanager
def _after(owner_of: type, name: str, then: Callable[..., Any]) -> Iterator[None]:
    method = getattr(owner_of, name)

    def both(self: Any, *arguments: Any) -> Any:
        result = method(self, *arguments)
        then(*arguments)
        return result

    with mock.patch.object(owner_of, name, both):
        yield
