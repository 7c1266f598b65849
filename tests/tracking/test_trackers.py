"""TensorBoard, read back from its files, and what happens when a mirror breaks."""

from __future__ import annotations

import importlib
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
from fedexp.federation.events import Ending, RoundReport
from fedexp.tracking import trackers as tracking
from fedexp.tracking.run_folder import Metric
from fedexp.tracking.trackers import Trackers, client_rows

TENSORBOARD = ("tracking=tensorboard", "backend=inline", "clients.fraction_evaluate=1")


def _events(folder: Path) -> Any:
    found = EventAccumulator(str(folder / "tensorboard"))
    found.Reload()
    return found


def test_tensorboard_has_every_round(run_of: Callable[..., Path]) -> None:
    folder = run_of(*TENSORBOARD)
    found = _events(folder)
    metrics = pd.read_csv(folder / "metrics.csv")
    for name, subset in (("global/accuracy", "all"), ("global/accuracy/1-3-7", "1-3-7")):
        on_server = (metrics["split"] == "test") & (metrics["metric"] == "accuracy")
        rows = metrics[on_server & (metrics["subset"] == subset)]
        written = {event.step: event.value for event in found.Scalars(name)}
        assert written == pytest.approx(dict(zip(rows["round"], rows["value"], strict=True)))
        assert sorted(written) == [0, 1, 2]
    assert {"clients/accuracy/worst10", "time/train"} <= set(found.Tags()["scalars"])
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

    def __init__(self, bad_round: int = -1) -> None:
        self.rounds: list[int] = []
        self.ended = False
        self._bad_round = bad_round

    def on_round(self, server_round: int, figures: Mapping[str, float]) -> None:
        if server_round == self._bad_round:
            raise OSError("disk full")
        self.rounds.append(server_round)

    def finish(self, ending: Ending) -> list[str]:
        self.ended = True
        return ["closed"]


def test_a_mirror_that_breaks_is_left_out_and_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = Recorder(), Recorder(bad_round=1)
    trackers = Trackers(config(), tmp_path, None)
    monkeypatch.setattr(trackers, "_mirrors", {"bad": bad, "good": good})
    for server_round in range(3):
        row = Metric(server_round, "global", "test", "all", None, "accuracy", 0.5)
        trackers.on_round(RoundReport(server_round, [row]))
    assert (good.rounds, bad.rounds) == ([0, 1, 2], [0])
    said = trackers.finish({"status": "completed"})
    assert said == [
        "  bad has not all of this run: disk full (run.log has more; the folder is complete)",
        "closed",
    ]
    assert (good.ended, bad.ended) == (True, False)
    assert "Traceback" in caplog.text


def test_a_run_without_a_partition_has_no_client_rows(tmp_path: Path) -> None:
    assert client_rows(tmp_path, {}) == []
