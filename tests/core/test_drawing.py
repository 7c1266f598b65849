"""A process that draws beside this one."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest

from fedexp.core import drawing, forked, pictures
from fedexp.core.drawing import DrawingProcess
from fedexp.core.pictures import confusion_png

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only on Linux a fork is safe")


@pytest.fixture
def working() -> Iterator[DrawingProcess]:
    """A process that draws, and ends with the test."""
    found = DrawingProcess()
    assert found.is_ready(patience=60)
    yield found
    found.dismiss()


def _by(told: object = "") -> bytes:
    return f"{os.getpid()} {told}".encode()


def _of(size: int, _: object = None) -> bytes:
    return bytes(size)


def _there_alone(here: int) -> bytes:
    if os.getpid() != here:
        raise ValueError("nobody has drawn this")
    return b"here"


def _warning(here: int) -> bytes:
    if os.getpid() != here:
        warnings.warn("a glyph is missing", stacklevel=1)
    return b"here"


def _logging(here: int) -> bytes:
    if os.getpid() != here:
        logging.getLogger("matplotlib.font_manager").warning("a font is missing")
    return b"here"


def _fatal(here: int) -> bytes:
    if os.getpid() != here:
        os.kill(os.getpid(), signal.SIGKILL)
    return b"here"


def test_somebody_else_draws(working: DrawingProcess) -> None:
    first, second, third = (working.ask(partial(_by, k)) for k in range(3))
    found = [third(), first(), second()]
    assert found == [f"{working._process.pid} {k}".encode() for k in (2, 0, 1)]


def test_pictures_are_the_same_whoever_draws_them(working: DrawingProcess) -> None:
    draw = partial(confusion_png, {None: np.arange(9).reshape(3, 3)}, ["a", "b", "c"])
    assert working.ask(draw)() == draw()


@pytest.mark.parametrize("draw", [_there_alone, _warning, _logging, _fatal])
def test_what_nobody_else_can_draw_is_drawn_here(
    draw: Callable[[int], bytes], working: DrawingProcess
) -> None:
    begun = [working.ask(partial(draw, os.getpid())), working.ask(_by)]
    assert begun[0]() == b"here"
    is_gone = draw is _fatal
    assert begun[1]() == f"{os.getpid() if is_gone else working._process.pid} ".encode()


def test_whoever_is_gone_is_asked_for_nothing(working: DrawingProcess) -> None:
    working._process.kill()
    working._process.join()
    assert working.ask(_by)() == _by()


def test_whoever_is_stopped_is_not_waited_for(
    working: DrawingProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "PATIENCE", 0.1)
    os.kill(working._process.pid or 0, signal.SIGSTOP)
    assert working.ask(_by)() == _by()


def test_whoever_is_not_ready_is_asked_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "warm_up", partial(time.sleep, 60))
    starting = DrawingProcess()
    assert starting.ask(_by) is _by
    starting.dismiss()


def test_where_drawing_warns_from_the_start_it_is_done_here(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def warm_up() -> bytes:
        os.write(1, b"to the terminal")
        return _logging(0)

    monkeypatch.setattr(pictures, "warm_up", warm_up)
    gone = DrawingProcess()
    assert not gone.is_ready(patience=60)
    assert gone.ask(_by) is _by
    gone.dismiss()
    assert capfd.readouterr() == ("", "")


def test_nobody_waits_for_somebody_who_waits(working: DrawingProcess) -> None:
    large = 4 * forked.HELD  # more than lies in a pipe, both ways
    begun = [working.ask(partial(_of, large, bytes(large))) for _ in range(3)]
    assert [len(draw()) for draw in begun] == [large] * 3


def test_a_fork_draws_for_itself(working: DrawingProcess) -> None:
    ours, theirs = multiprocessing.Pipe()

    def beside() -> None:
        theirs.send((working.ask(_by)(), os.getpid()))

    fork = multiprocessing.get_context("fork").Process(target=beside)
    fork.start()
    drawn, pid = ours.recv()
    fork.join()
    assert drawn == f"{pid} ".encode()


def test_nobody_is_asked_where_a_fork_is_not_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "_drawing", None)
    drawing.begin()  # in a process that is not the program
    assert drawing.ahead(_by) is _by


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_the_program_draws_in_a_process_that_ends_with_it(tmp_path: Path) -> None:
    words = ("rounds=1000", "backend=inline", "model.hidden=[8]")
    program = subprocess.Popen([sys.executable, "-m", "fedexp", *words], cwd=tmp_path)
    try:
        limit = time.monotonic() + 60
        while not list(tmp_path.glob("results/*/*/metrics.csv")) and time.monotonic() < limit:
            time.sleep(0.05)
        drawers = psutil.Process(program.pid).children()
        assert len(drawers) == 1
        assert _runs(drawers[0])
    finally:
        program.kill()
        program.wait()
    limit = time.monotonic() + 10
    while _runs(drawers[0]) and time.monotonic() < limit:
        time.sleep(0.05)
    assert not _runs(drawers[0])
