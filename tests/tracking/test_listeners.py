"""Who listens to a run is told all of it, in order, and told its ending once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support.helpers import Recorder, config, run, summary, tiny_data, with_fault

from fedexp import experiment
from fedexp.core.options import FedexpError
from fedexp.experiment import Attempt
from fedexp.federation import conclusion
from fedexp.federation.events import (
    Ending,
    Failure,
    Listener,
    Listeners,
    RoundReport,
    RunInfo,
)
from fedexp.tracking.terminal import Terminal


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole lines, however wide the terminal is that runs the tests."""
    monkeypatch.setenv("COLUMNS", "300")


COMPLETED, FAILED = Ending("completed", {}), Ending("failed", {})


class Diary(Listener):
    """Writes down what it is told in a diary that it shares; may be cut short at one of its lines."""

    def __init__(
        self, name: str, diary: list[tuple[str, str, Any]], cut: Mapping[str, BaseException]
    ) -> None:
        self._name, self._diary, self._cut = name, diary, cut

    def _note(self, what: str, told: Any) -> None:
        self._diary.append((self._name, what, told))
        if what in self._cut:
            raise self._cut[what]

    def begin(self, run: RunInfo) -> None:
        self._note("begin", run)

    def dealt(self, partition: Mapping[str, Any]) -> None:
        self._note("dealt", partition)

    def progress(self, server_round: int, phase: str, done: int, total: int) -> None:
        self._note("progress", (server_round, phase, done, total))

    def round(self, report: RoundReport) -> None:
        self._note("round", report)

    def end(self, ending: Ending) -> None:
        self._note("end", ending)


def _three(**cut: BaseException) -> tuple[Listeners, list[tuple[str, str, Any]]]:
    """Return three listeners, of whom the second may be cut short, and their diary."""
    diary: list[tuple[str, str, Any]] = []
    return Listeners(Diary("a", diary, {}), Diary("b", diary, cut), Diary("c", diary, {})), diary


def test_everybody_is_told_everything_in_order(tmp_path: Path) -> None:
    listeners, diary = _three()
    info, report = RunInfo(config(), tmp_path), RoundReport(1)
    listeners.begin(info)
    listeners.dealt({"sha256": "x"})
    listeners.progress(1, "train", 2, 3)
    listeners.round(report)
    listeners.end(COMPLETED)
    told = [
        *(("begin", info), ("dealt", {"sha256": "x"}), ("progress", (1, "train", 2, 3))),
        *(("round", report), ("end", COMPLETED)),
    ]
    assert diary == [(name, what, content) for what, content in told for name in "abc"]


def _endings(diary: list[tuple[str, str, Any]]) -> list[tuple[str, Any]]:
    return [(name, told) for name, what, told in diary if what == "end"]


def test_an_ending_is_told_once_to_each(tmp_path: Path) -> None:
    listeners, diary = _three()
    listeners.begin(RunInfo(config(), tmp_path))
    listeners.end(COMPLETED)
    listeners.end(FAILED)
    assert _endings(diary) == [(name, COMPLETED) for name in "abc"]


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), OSError("disk full")])
def test_where_telling_the_ending_is_cut_short_the_rest_is_told_the_same(
    tmp_path: Path, error: BaseException
) -> None:
    listeners, diary = _three(end=error)
    listeners.begin(RunInfo(config(), tmp_path))
    with pytest.raises(type(error)):
        listeners.end(COMPLETED)
    assert _endings(diary) == [("a", COMPLETED), ("b", COMPLETED)]
    listeners.end(FAILED)
    assert _endings(diary)[2:] == [("c", COMPLETED)]
    listeners.end(FAILED)
    assert len(_endings(diary)) == 3


def test_who_was_not_told_of_the_beginning_is_not_told_of_the_ending(tmp_path: Path) -> None:
    # Whoever opens files in begin() has none to close in end().
    listeners, diary = _three(begin=FedexpError("no such server"))
    with pytest.raises(FedexpError):
        listeners.begin(RunInfo(config(), tmp_path))
    listeners.end(FAILED)
    assert [(name, what) for name, what, _ in diary] == [
        *(("a", "begin"), ("b", "begin"), ("a", "end")),
    ]


def test_a_folder_that_cannot_be_opened_is_the_reason_that_is_given(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(FedexpError, match="file cannot be written: File exists"):
        run(config(rounds=1), file)


def test_a_folder_that_cannot_take_the_ending_says_that_it_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(experiment, "federate", lambda _: tiny_data())
    (tmp_path / "confusion.csv").mkdir()  # where a file must go
    with pytest.raises(FedexpError, match="cannot be written: Is a directory"):
        run(config(rounds=1), tmp_path)
    found = summary(tmp_path)
    assert (found["status"], found["rounds"]) == ("failed", 1)
    assert "confusion.csv" in found["error"]
    # Nor does the terminal name the folder as that of a run that completed.
    assert capsys.readouterr().out.splitlines()[-1].startswith("  round 1/1  ")


def test_a_round_that_broke_off_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "federate", lambda _: with_fault(tiny_data(), bad_client=-1))
    recorder = Recorder()
    with pytest.raises(FedexpError, match="all 3 clients failed to train"):
        Attempt(config(rounds=5), recorder, verbose=False).complete()
    initial, broken = recorder.reports
    assert set(initial.headline) == {"accuracy", "loss"}
    assert (broken.round, broken.headline, broken.measurements) == (1, {}, [])
    assert [(row.round, row.phase, row.client) for row in broken.failures] == [
        (1, "train", client) for client in range(3)
    ]
    assert broken.num_failures == 3
    assert "train" in broken.seconds


def test_the_terminal_says_nothing_of_a_round_without_a_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = Terminal()
    terminal.begin(RunInfo(config(rounds=2), tmp_path / "out", label="3-fedavg-s0"))
    terminal.round(RoundReport(0, headline={"accuracy": 0.125, "loss": 2.5}))
    terminal.round(RoundReport(1, headline={"accuracy": 0.5, "loss": 1.5}, local=True))
    terminal.round(RoundReport(2))
    terminal.end(FAILED)
    first, initial, local = capsys.readouterr().out.splitlines()
    assert first == (
        "3-fedavg-s0: fedexp: strategy=fedavg dataset=mnist5k partition=iid clients=3 rounds=2 "
        "backend=inline seed=0"
    )
    assert initial == (
        "3-fedavg-s0:   round 0/2  global test accuracy 0.125  loss 2.500  (untrained)"
    )
    assert local.startswith(
        "3-fedavg-s0:   round 1/2  local models' mean test accuracy 0.500  loss 1.500  0."
    )


def test_a_run_that_is_told_to_nobody_comes_to_the_same_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiment, "federate", lambda _: tiny_data())
    monkeypatch.setattr(conclusion, "confusion_png", lambda *_: b"")  # drawing takes a second
    written = run(config(rounds=2), tmp_path)
    ending = Attempt(config(rounds=2), Listener(), verbose=False).complete()
    assert ending.status == "completed"
    # How long it took, and what the folder says of its own files, is all that differs.
    of_the_folder = {"seconds": None, "metrics_csv": None}
    assert {**ending.summary, **of_the_folder} == {**written, **of_the_folder}
    assert summary(tmp_path) == written
    assert [row["client"] for row in ending.clients] == [0, 1, 2]


@pytest.mark.parametrize("sweep", [None, "lesson-1"])
def test_a_single_run_ends_with_the_next_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], sweep: str | None
) -> None:
    terminal, folder = Terminal(), tmp_path / "my run"
    terminal.begin(RunInfo(config(rounds=2), folder, sweep=sweep))
    terminal.end(Ending("completed", {}, weights={}))
    told = capsys.readouterr().out.splitlines()
    shown = os.path.relpath(folder)
    assert told[1:] == [f"  {shown}", *([] if sweep else [f"  next: fedexp report '{shown}'"])]


def test_a_run_that_was_interrupted_says_how_it_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = Terminal()
    terminal.begin(RunInfo(config(rounds=2), tmp_path))
    terminal.end(Ending("interrupted", {}))
    (told,) = capsys.readouterr().out.splitlines()[1:]
    assert told.endswith(f"fedexp resume {os.path.relpath(tmp_path)}")


def test_clients_that_failed_are_told_at_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = Terminal()
    terminal.begin(RunInfo(config(rounds=2), tmp_path))
    faulty = Failure(0, "byzantine", 0, "gaussian")
    dropped = Failure(1, "train", 1, "DroppedOutError: clients.dropout=0.5")
    failed = [Failure(t, "train", 2, "ValueError: mine") for t in (1, 2)]
    terminal.round(RoundReport(0, failures=[faulty]))
    terminal.round(RoundReport(1, failures=[dropped, failed[0]]))
    terminal.round(RoundReport(2, failures=[failed[1]]))
    terminal.end(Ending("completed", {}, weights={}))
    told = capsys.readouterr().out.splitlines()[1]
    assert told.strip().startswith("1 client failed, first client 2 in round 1: ValueError: mine")
