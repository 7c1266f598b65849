"""Any command runs, or is refused in lines: no traceback, no file.

How many commands the slow set tries is ``FEDEXP_COMMANDS`` (5,000 unless it is set).
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from support.commands import NOT_HERE, commands

from fedexp import runner
from fedexp.config.composition import plan
from fedexp.config.validation import validate
from fedexp.core.options import ConfigError, FedexpError
from fedexp.federation.events import RunInfo

MANY = int(os.environ.get("FEDEXP_COMMANDS", "5000"))
COMMON = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None}


def _check(words: list[str], multirun: bool) -> None:
    before = sorted(Path.cwd().iterdir())
    try:
        jobs = plan(words, multirun=multirun)
    except (ConfigError, FedexpError) as error:
        lines = str(error).split("\n")
        assert all(line.strip() and len(line) < 3_000 for line in lines), lines
        assert not any("Traceback" in line or "object at 0x" in line for line in lines), lines
    else:
        assert jobs
        assert all(validate(job.config) == [] for job in jobs)
    assert sorted(Path.cwd().iterdir()) == before


@settings(max_examples=5, derandomize=True, **COMMON)  # type: ignore[arg-type]
@given(commands())
def test_a_command_is_planned_or_refused_in_lines(command: tuple[list[str], bool]) -> None:
    _check(*command)


@pytest.mark.slow  # a tenth of a second a command, and more if it is refused
@settings(max_examples=MANY, **COMMON)  # type: ignore[arg-type]
@given(commands())
def test_thousands_of_commands_are_planned_or_refused_in_lines(
    command: tuple[list[str], bool],
) -> None:
    _check(*command)


SHORT = ("backend=inline", "rounds=1", "isolated_rounds=1", "training.local_steps=1")


@pytest.mark.slow  # a run for each command that can run
@settings(max_examples=max(1, MANY // 50), **COMMON)  # type: ignore[arg-type]
@given(commands())
def test_what_is_planned_runs_or_fails_in_a_line(command: tuple[list[str], bool]) -> None:
    try:
        job = plan([*command[0], *SHORT, "tracking=csv", "dataset.root=data"], multirun=True)[0]
        if job.chosen_later or job.config.dataset.name in NOT_HERE["dataset"]:
            return
        runner.ensure([job.config])  # as the program does: a GPU may be asked for that is not there
    except (ConfigError, FedexpError):
        return
    told = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(told):
        with contextlib.redirect_stdout(io.StringIO()):
            completed = runner.run_logged(RunInfo(job.config, Path(folder) / "run"))
        log = (Path(folder) / "run" / "run.log").read_text()
    if completed:
        assert told.getvalue() == ""
    else:
        (line,) = told.getvalue().splitlines()
        own = ("fedexp.core.options.FedexpError", "fedexp.core.options.DivergedError")
        assert any(name in log for name in own), (line, log)
