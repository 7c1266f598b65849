"""TensorBoard, read back from its files, and what happens when a mirror breaks."""

from __future__ import annotations

import importlib
import subprocess
from collections.abc import Callable, Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.helpers import config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fedexp.config.tracking import TrackingConfig
from fedexp.core.options import FedexpError
from fedexp.federation.events import Ending, Measurement, RoundReport, RunInfo
from fedexp.tracking import trackers as tracking
from fedexp.tracking.trackers import Trackers, sync_lines

TENSORBOARD = ("tracking=tensorboard", "backend=inline", "clients.fraction_evaluate=1")


def _events(folder: Path) -> Any:
    found = EventAccumulator(str(folder / "tensorboard"))
    found.Reload()
    return found


def test_tensorboard_has_every_round(run_of: Callable[..., Path]) -> None:
    folder = run_of(*TENSORBOARD, "metrics=[macro_f1]")
    found = _events(folder)
    metrics = pd.read_csv(folder / "metrics.csv")
    for name, metric, subset in (
        ("global/accuracy", "accuracy", "all"),
        ("global/accuracy/1-3-7", "accuracy", "1-3-7"),
        ("global/macro_f1", "macro_f1", "all"),
        ("global/macro_f1/2-5-8", "macro_f1", "2-5-8"),
    ):
        on_server = (metrics["split"] == "test") & (metrics["metric"] == metric)
        rows = metrics[on_server & (metrics["subset"] == subset)]
        written = {event.step: event.value for event in found.Scalars(name)}
        assert written == pytest.approx(dict(zip(rows["round"], rows["value"], strict=True)))
        assert sorted(written) == [0, 1, 2]
    tags = set(found.Tags()["scalars"])
    assert {"clients/accuracy/worst10", "clients/macro_f1/mean", "time/train"} <= tags
    assert found.Tags()["images"] == ["confusion", "partition"]
    (text,) = found.Tensors("summary/text_summary")
    assert b"completed" in text.tensor_proto.string_val[0]
    assert not (folder / "wandb").exists()


def test_without_the_package_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_tensorboard(name: str) -> ModuleSpec | None:
        return None if name == "tensorboard" else importlib.util.find_spec(name)

    monkeypatch.setattr(tracking, "find_spec", without_tensorboard)
    with pytest.raises(FedexpError, match=r"pip install 'fedexp\[tensorboard\]'"):
        tracking.ensure(TrackingConfig(tensorboard=True))


class Recorder:
    """A mirror that keeps what it is told, and fails in one round."""

    wants_past = False
    id = ""

    def __init__(self, bad_round: int = -1) -> None:
        self.rounds: list[int] = []
        self.numbers: list[Mapping[str, float]] = []
        self.endings: list[Ending] = []
        self._bad_round = bad_round

    def on_round(self, server_round: int, numbers: Mapping[str, float]) -> None:
        if server_round == self._bad_round:
            raise OSError("disk full")
        self.rounds.append(server_round)
        self.numbers.append(numbers)

    def finish(self, ending: Ending) -> list[str]:
        self.endings.append(ending)
        return ["closed"]


def _told(
    monkeypatch: pytest.MonkeyPatch, mirrors: Mapping[str, Recorder]
) -> tuple[Trackers, list[str]]:
    """Return trackers with the given mirrors, and where what they say is kept."""
    said: list[str] = []
    trackers = Trackers(lambda *lines: said.extend(lines))
    monkeypatch.setattr(trackers, "_mirrors", dict(mirrors))
    return trackers, said


def test_a_mirror_that_breaks_is_left_out_and_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = Recorder(), Recorder(bad_round=1)
    trackers, said = _told(monkeypatch, {"bad": bad, "good": good})
    for server_round in range(3):
        row = Measurement(server_round, "global", "test", "all", None, "accuracy", 0.5)
        trackers.round(RoundReport(server_round, [row]))
    assert (good.rounds, bad.rounds) == ([0, 1, 2], [0])
    ending = Ending("completed", {"status": "completed"})
    trackers.end(ending)
    assert said == [
        "  bad has not all of this run: disk full (run.log has more; the folder is complete)",
        "closed",
    ]
    assert (good.endings, bad.endings) == ([ending], [])
    assert "Traceback" in caplog.text


def _own(client: int, value: float) -> Measurement:
    return Measurement(3, "global", "client_test", "all", client, "accuracy", value)


def test_a_number_is_given_once_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = Recorder()
    trackers, _ = _told(monkeypatch, {"mirror": mirror})
    trackers.round(RoundReport(3, [_own(0, 0.5)]))
    everybody = [_own(0, 0.5), _own(1, 0.1)]
    trackers.end(Ending("completed", {"rounds": 3}, measurements=everybody))
    # What the last round said of the clients that evaluated stands.
    assert mirror.rounds == [3]
    assert mirror.numbers[0]["clients/accuracy/mean"] == 0.5


def test_clients_that_did_not_evaluate_are_told_of_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mirror = Recorder()
    trackers, _ = _told(monkeypatch, {"mirror": mirror})
    trackers.round(RoundReport(3, seconds={"train": 0.5}))
    everybody = [_own(0, 0.5), _own(1, 0.1)]
    trackers.end(Ending("completed", {"rounds": 3}, measurements=everybody))
    assert mirror.rounds == [3, 3]
    assert mirror.numbers[0] == {"time/train": 0.5, "clients/failures": 0}
    assert mirror.numbers[1] == {
        "clients/accuracy/mean": pytest.approx(0.3),
        "clients/accuracy/std": pytest.approx(0.2),
        "clients/accuracy/min": 0.1,
        "clients/accuracy/worst10": 0.1,
    }


def test_some_isolated_clients_do_not_pass_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = Recorder()
    trackers, _ = _told(monkeypatch, {"mirror": mirror})
    # Each client selected a round of its own on held-out examples; only client 0 chose the last.
    rows = [_own(0, 0.5)._replace(model="local"), _own(1, 0.1)._replace(model="local", round=1)]
    trackers.end(Ending("completed", {"rounds": 3}, measurements=rows))
    assert mirror.numbers == []


def test_nothing_is_opened_unless_it_is_asked_for(tmp_path: Path) -> None:
    said: list[str] = []
    trackers = Trackers(lambda *lines: said.extend(lines))
    trackers.begin(RunInfo(config(), tmp_path))
    trackers.round(RoundReport(0, [_own(0, 0.5)]))
    trackers.end(Ending("completed", {}))
    assert (said, list(tmp_path.iterdir())) == ([], [])


def test_a_sweep_is_sent_by_one_line_that_a_shell_can_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sweep = tmp_path / "my run (1)"
    expected = []
    for job in ("0-fedavg-s0", "1-local only", "deeper/2"):
        kept = sweep / job / "wandb" / f"offline-run-{job[0]}"
        kept.mkdir(parents=True)
        expected.append(str(kept.relative_to(tmp_path)))
    (sweep / "0-fedavg-s0" / "wandb" / "before-resuming-offline-run-0").mkdir()
    (line,) = sync_lines(sweep)
    command = line.partition("wandb sync ")[2]
    script = f'for path in {command}; do echo "$path"; done'
    found = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert sorted(found.stdout.splitlines()) == sorted(expected)
    assert sync_lines(tmp_path / "nothing") == []
