"""The one bar that a notebook shows."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from support.helpers import draw_nothing

from fedexp import api

TINY = ("rounds=2", "model=logistic", "backend=inline", "training.local_steps=1")


class Screen:
    """What a kernel would send to the browser: every display, and the states that each went through."""

    def __init__(self) -> None:
        self.displays: list[list[str]] = []

    def display(self, shown: str, *, display_id: bool) -> Any:
        """Show something that can be changed later."""
        assert display_id
        states = [shown]
        self.displays.append(states)
        return SimpleNamespace(update=states.append)


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """Stand in for a notebook's kernel."""
    screen = Screen()
    ipython, shown = ModuleType("IPython"), ModuleType("IPython.display")
    vars(ipython).update(
        get_ipython=lambda: SimpleNamespace(kernel=object()), version_info=(9, 0, 0)
    )
    vars(shown).update(display=screen.display, HTML=str)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", shown)
    draw_nothing(monkeypatch)
    return screen


def test_all_jobs_share_one_bar(
    screen: Screen, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    found = api.run(*TINY, "seed=0,1", folder=tmp_path / "sweep")
    assert capfd.readouterr().out == ""
    (states,) = screen.displays
    shares = [float(value) for state in states for value in re.findall(r'value="([\d.]+)"', state)]
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert shares[-1] == 1
    last = json.loads(
        (tmp_path / "sweep" / found.runs["path"].iloc[-1] / "summary.json").read_text()
    )
    accuracy = last["final"]["all"]["accuracy"]
    assert f"job 2/2: fedavg-exclude-s1  completed  accuracy {accuracy:.3f}" in states[-1]
    for folder in found.runs["path"]:
        assert "round 2/2" in (tmp_path / "sweep" / folder / "run.log").read_text()


def test_jobs_that_do_not_complete_stay_in_sight(screen: Screen, tmp_path: Path) -> None:
    api.run(*TINY, "training.learning_rate=1e30,0.1", folder=tmp_path / "sweep")
    (states,) = screen.displays
    assert any("job 1/2" in state and "diverged" in state for state in states)
    assert "job 2/2" in states[-1]
    assert "(1 did not complete)" in states[-1]


def test_a_console_without_a_kernel_has_lines(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ipython = ModuleType("IPython")
    vars(ipython).update(get_ipython=SimpleNamespace, version_info=(9, 0, 0))
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    api.run(*TINY, folder=tmp_path / "run")
    assert "round 2/2" in capfd.readouterr().out
