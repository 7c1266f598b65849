"""What ends a run from outside leaves a folder that says so, and an exit code that names the signal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from fedexp import __main__ as program
from fedexp.core import signals


def _start(folder: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-u", "-m", "fedexp", "hydra.run.dir=run", *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, stdout=pipe, stderr=pipe, text=True)


def _read_until(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return
    pytest.fail(f"it ended without {text}")


@pytest.mark.parametrize(
    ("backend", "number"),
    [
        pytest.param("inline", signal.SIGHUP, marks=pytest.mark.slow),
        pytest.param("ray", signal.SIGTERM, marks=pytest.mark.slow),  # Ray's start takes it over
        pytest.param("ray", signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("flower", signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param("flower", signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("flower", signal.SIGHUP, marks=pytest.mark.slow),
    ],
)
def test_a_signal_ends_a_run_in_order(tmp_path: Path, backend: str, number: signal.Signals) -> None:
    workers = [] if backend == "inline" else ["backend.workers=1"]  # from the start
    process = _start(tmp_path, f"backend={backend}", *workers, "rounds=100000")
    _read_until(process, "round 2/")
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "Traceback" not in output + errors
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "interrupted"
    assert summary["rounds"] >= 1  # the line of the second may come first


@pytest.mark.slow  # six whole commands: 20 s
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("terminal", [True, False])
def test_a_signal_ends_the_runs_of_a_launchers_processes_in_order(
    tmp_path: Path, number: signal.Signals, terminal: bool
) -> None:
    words = "hydra/launcher=joblib hydra.launcher.n_jobs=2 hydra.sweep.dir=sweep".split()
    run = "backend=inline model=logistic training.local_steps=2 rounds=100000 seed=0,1,2,3".split()
    output = tmp_path / "output"
    with output.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "fedexp", "-m", *words, *run],
            cwd=tmp_path,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    # Of both runs: one may have two checkpoints before the other one has begun.
    while len({path.parent for path in tmp_path.glob("sweep/*/checkpoint/*")}) < 2:
        assert process.poll() is None
        time.sleep(0.1)
    if terminal:  # tells all processes; others tell the first one
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    assert process.wait(timeout=60) == 128 + number
    if (number, terminal) != (signal.SIGHUP, True):  # which ends joblib's resource tracker, loudly
        assert "Traceback" not in output.read_text()
    summaries = [json.loads(path.read_text()) for path in tmp_path.glob("sweep/*/summary.json")]
    assert [summary["status"] for summary in summaries] == ["interrupted"] * 2


@pytest.mark.slow  # ten short commands: 10 s
def test_ctrl_c_at_any_instant_of_the_start_is_no_traceback(tmp_path: Path) -> None:
    for tenths in range(2, 22, 2):
        process = _start(tmp_path, "backend=inline", "rounds=100000")
        time.sleep(tenths / 10)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        if process.returncode == -signal.SIGINT:  # still in Python's own start and our first lines
            assert not any(
                f"/{name}/" in errors for name in ("hydra", "omegaconf", "fedexp/config")
            )
        else:
            assert (process.returncode, errors) == (130, "")


@pytest.mark.slow  # four whole commands: 15 s
@pytest.mark.parametrize(
    "words",
    [
        ("mode=partition", "hydra.run.dir=run"),
        ("-m", "mode=partition", "seed=0,1", "hydra.sweep.dir=sweep"),
        ("-m", "backend=inline", "seed=0,1", "rounds=1", "hydra.sweep.dir=sweep"),
        ("--help",),
    ],
)
def test_a_reader_that_is_gone_from_the_start_is_no_traceback(
    tmp_path: Path, words: Sequence[str]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "fedexp", *words]
    found = subprocess.run(
        command, cwd=tmp_path, stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert (found.returncode, found.stderr) == (1, "")
    statuses = [json.loads(path.read_text()) for path in tmp_path.rglob("summary.json")]
    assert all(summary["status"] == "interrupted" for summary in statuses)


@pytest.mark.slow  # a whole command: 5 s
def test_a_reader_that_goes_away_ends_a_run_in_order(tmp_path: Path) -> None:
    process = _start(tmp_path, "backend=inline", "rounds=100000")
    _read_until(process, "round 1/")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()  # as `fedexp | head` does
    errors = process.stderr.read()
    assert (process.wait(timeout=60), errors) == (1, "")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "interrupted"


def test_ctrl_c_before_anything_runs_is_no_traceback(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys, fedexp.__main__ as program\n"
        "program.runner.ensure = lambda *_, **__: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.argv = ['fedexp', 'backend=inline']\n"
        "program.main()\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stdout, found.stderr) == (130, "", "")
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_where_there_is_nothing_to_put_in_order_ends_the_process() -> None:
    code = (
        "import signal; from fedexp.core import signals\n"
        "with signals.ending_at_once():\n"
        "    pass\n"
        "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler\n"
        "with signals.ending_at_once():\n"
        "    signal.raise_signal(signal.SIGINT)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, check=False)
    assert (found.returncode, found.stderr) == (130, b"")


@pytest.fixture
def ours() -> Iterator[None]:
    """Let SIGTERM and SIGHUP be the program's for a test."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    interrupt = signal.getsignal(signal.SIGINT)
    before = [signal.signal(number, signal.SIG_DFL) for number in numbers]
    signals.stop_on_signals()
    yield
    signals._received.clear()
    signals._first.clear()
    signal.signal(signal.SIGINT, interrupt)
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def test_a_signal_is_as_ctrl_c_once(ours: None) -> None:
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGHUP)
    assert signals.exit_code() == 129
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL  # the second one would end it


def test_what_must_come_first_comes_first(ours: None) -> None:
    done: list[str] = []
    signals.before_stopping(lambda: done.append("workers"))
    for number in (signal.SIGINT, signal.SIGTERM):
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert done == ["workers"] * 2
    assert signals.exit_code() == 130


def test_a_launchers_process_stops_once(ours: None) -> None:
    signals.stop_once()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.raise_signal(number)  # while it puts things in order
    with pytest.raises(KeyboardInterrupt):
        signals.obey()  # the next job


def test_a_signal_that_is_ignored_stays_ignored(ours: None) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup arranges
    signals.stop_on_signals()
    signal.raise_signal(signal.SIGHUP)


def test_a_signal_that_is_taken_over_is_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with signals.kept():
        signal.signal(signal.SIGTERM, lambda *_: None)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_that_comes_while_it_is_taken_over_counts(ours: None) -> None:
    with pytest.raises(KeyboardInterrupt):
        _stopped_in_a_block()
    assert signals.exit_code() == 143
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def _stopped_in_a_block() -> None:
    with signals.kept():
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))  # as Ray does
        signal.raise_signal(signal.SIGTERM)


def _exit_in_a_block() -> None:
    with signals.kept():
        sys.exit(3)


def test_a_signal_that_a_library_swallowed_is_obeyed_later(ours: None) -> None:
    signals.obey()
    with suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        signals.obey()


def test_signals_are_held_back_until_a_block_is_over(ours: None) -> None:
    done: list[str] = []

    def block() -> None:
        with signals.held_back():
            signal.raise_signal(signal.SIGTERM)
            done.append("all of it")

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)]
    with pytest.raises(KeyboardInterrupt):
        block()
    assert (done, signals.exit_code()) == (["all of it"], 143)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)] == before


def test_an_exit_that_no_signal_asked_for_stays_one() -> None:
    with pytest.raises(SystemExit):
        _exit_in_a_block()
    assert signals.exit_code() == 130


def test_a_signal_while_the_table_is_made_is_the_exit_code(
    ours: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes: list[int] = []
    monkeypatch.setattr(sys, "argv", ["fedexp"])
    monkeypatch.setattr(program, "_prepare", lambda _: ([], [], None))
    monkeypatch.setattr(program, "_hand_to_hydra", lambda *_: None)
    monkeypatch.setattr(program, "_conclude", lambda **_: signal.raise_signal(signal.SIGTERM))
    monkeypatch.setattr("fedexp.runner.leave", lambda code, **_: codes.append(code))
    program.main()
    assert codes == [143]
