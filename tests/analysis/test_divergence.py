"""Case 17: a run that comes to nothing says so, in its folder and in the tables."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, NoReturn

import pytest
from support.folders import federated, write_run

from fedexp.analysis.results import load
from fedexp.config.composition import compose_config
from fedexp.core.files import json_bytes
from fedexp.experiment import run_experiment
from fedexp.federation.events import RunInfo

POISON = (
    *("backend=inline", "rounds=3", "training.local_steps=2"),
    *("clients.byzantine.fraction=0.4", "clients.byzantine.kind=gaussian"),
    *("clients.byzantine.scale=1e30", "stop.metric=loss", "stop.patience=1"),
)


def _no_number(word: str) -> NoReturn:
    raise AssertionError(f"{word} is no JSON")


@pytest.mark.slow  # two trainings: 4 s, and 9 with a CNN
@pytest.mark.parametrize(("model", "loss"), [("logistic", r"9.86e\+30"), ("cnn", "nan")])
def test_a_run_whose_loss_is_beyond_use_says_diverged(
    tmp_path: Path, model: str, loss: str
) -> None:
    config = compose_config([*POISON, f"model={model}"])
    summary = run_experiment(RunInfo(config, tmp_path))
    assert (summary["status"], summary["rounds"]) == ("diverged", 1)  # patience is at its end
    content = json.loads((tmp_path / "summary.json").read_text(), parse_constant=_no_number)
    assert (content["final"]["all"]["loss"] is None) == (loss == "nan")
    found = load(tmp_path)
    assert (found.completed, found.runs["status"].tolist()) == ([], ["diverged"])
    (problem,) = found.problems()
    assert re.fullmatch(f"diverged: {tmp_path}: the loss is {loss} after round 1", problem)


def test_json_has_null_for_what_is_no_number() -> None:
    content: dict[str, Any] = {"a": math.nan, "b": [math.inf, 1.5, {"c": (-math.inf, "NaN")}]}
    assert json.loads(json_bytes(content), parse_constant=_no_number) == {
        **{"a": None, "b": [None, 1.5, {"c": [None, "NaN"]}]},
    }


@pytest.mark.parametrize("loss", ["nan", "inf", ""])
def test_a_run_from_before_the_word_is_told_by_its_loss(tmp_path: Path, loss: str) -> None:
    write_run(tmp_path / "0", "fedavg", federated(0.5, loss=loss))  # type: ignore[arg-type]
    write_run(tmp_path / "1", "fedavg", federated(0.5), seed=1)
    found = load(tmp_path)
    assert found.runs["status"].tolist() == ["diverged", "completed"]
