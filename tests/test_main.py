"""The command line's refusals: exit code 2, a line a mistake, nothing written, nothing imported."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.programs import program


def _run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return program(folder, *arguments, spied=True)


@pytest.mark.parametrize("multirun", [[], ["-m"]])
def test_a_bad_command_costs_a_line_a_mistake(tmp_path: Path, multirun: list[str]) -> None:
    found = _run(tmp_path, *multirun, "rounds=0", "training.batchsize=32")
    assert found.returncode == 2
    assert found.stderr.splitlines() == [
        "fedexp: training.batchsize: no such option; did you mean batch_size?",
        "fedexp: rounds must be >= 1, got 0",
    ]
    assert list(tmp_path.iterdir()) == []
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (["clients=50", "~seed", "+unknown.key=1", "training.momentum=2"], 4),
        (["--config-dir", "absent"], 1),
        pytest.param(["strategy=fedavg,local_only"], 1, marks=pytest.mark.slow),
        pytest.param(
            ["-m", "strategy=fedavg,fedavgg", "training.batch_size=0"], 2, marks=pytest.mark.slow
        ),
        pytest.param(["rounds", "model.hidden=[1"], 2, marks=pytest.mark.slow),
        pytest.param(["clients=[50]"], 1, marks=pytest.mark.slow),
    ],
)
def test_whatever_is_wrong_is_refused(tmp_path: Path, arguments: list[str], lines: int) -> None:
    found = _run(tmp_path, *arguments)
    assert "Traceback" not in found.stderr
    assert found.returncode == 2
    assert len(found.stderr.splitlines()) == lines
    assert all(line.startswith("fedexp: ") for line in found.stderr.splitlines())
    assert list(tmp_path.iterdir()) == []
    assert found.stdout.strip() == "[]"


def test_the_installed_program_refuses_alike(tmp_path: Path) -> None:
    installed = shutil.which("fedexp", path=str(Path(sys.executable).parent))
    assert installed is not None
    found = subprocess.run(
        [installed, "rounds=0"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr == "fedexp: rounds must be >= 1, got 0\n"
    assert list(tmp_path.iterdir()) == []


def test_help_lists_groups_and_options(tmp_path: Path) -> None:
    found = _run(tmp_path, "--help")
    assert found.returncode == 0
    assert "strategy: afl, apfl, bulyan, centralized, " in found.stdout
    assert "schema" not in found.stdout
    assert "training.local_epochs=10 " in found.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_configuration_can_be_shown_without_a_run(tmp_path: Path) -> None:
    found = _run(tmp_path, "--cfg", "job", "seed=7")
    assert found.returncode == 0
    assert "seed: 7" in found.stdout
    assert list(tmp_path.iterdir()) == []
