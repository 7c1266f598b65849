"""No command writes a line that a terminal of 80 or 120 columns would wrap, in ASCII too."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from support.folders import alone, federated, write_run
from support.programs import program

from fedexp import manual, runner
from fedexp.analysis.programs import compare_program
from fedexp.api import run
from fedexp.commands import COMMANDS
from fedexp.config.composition import compose_config
from fedexp.config.schema import GROUPS
from fedexp.core.options import ConfigError
from fedexp.core.output import complain
from fedexp.core.terminal import fitted
from fedexp.federation.events import Ending, RoundReport, RunInfo
from fedexp.preview import show_partition
from fedexp.tracking.terminal import Terminal

QUICK = ("backend=inline", "model=logistic", "rounds=1", "training.local_steps=2")


@pytest.fixture(params=[80, 120])
def columns(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Set the width of the terminal."""
    monkeypatch.setenv("COLUMNS", str(request.param))
    return int(request.param)


@contextmanager
def ascii_output() -> Iterator[Callable[[], str]]:
    """Let standard output take nothing but ASCII; yield a function that says what it holds."""
    binary = io.BytesIO()
    out = io.TextIOWrapper(binary, encoding="ascii")

    def content() -> str:
        out.flush()
        return binary.getvalue().decode("ascii")

    with redirect_stdout(out):
        yield content


def _wide(text: str, columns: int) -> list[str]:
    """Return lines that are too long, less those with the next command, which is to be pasted."""
    lines = text.expandtabs().splitlines()
    assert lines
    return [line for line in lines if len(line) > columns and "next: " not in line]


def _sweep(folder: Path) -> Path:
    for seed in range(3):
        for number, alpha in enumerate((0.1, 1.0)):
            told = {"partition": {"name": "dirichlet", "alpha": alpha}, "seed": seed}
            where = folder / f"{alpha}-{seed}"
            shared: dict[str, Any] = {
                "seed": seed,
                "settings": told,
                "partition": f"p{number}{seed}",
            }
            accuracy = 0.5 + seed / 100 + number / 8
            write_run(where / "0", "fedavg", federated(accuracy, own=(0.5, 1.0)), **shared)
            write_run(where / "1", "fedadam", federated(accuracy - 0.1, own=(0.5, 0.9)), **shared)
            write_run(where / "2", "local_only", alone(0.25, 0.5, own=(0.75, 0.75)), **shared)
    return folder


@pytest.mark.parametrize(
    "words", [[], ["--rows", "strategy", "--columns", "partition.alpha"], ["--by", "strategy"]]
)
def test_compare(tmp_path: Path, columns: int, words: list[str]) -> None:
    with ascii_output() as told, pytest.raises(SystemExit) as ended:
        compare_program([str(_sweep(tmp_path / "s")), *words])
    assert ended.value.code == 0
    assert _wide(told(), columns) == []
    assert "+-" in told()


def test_a_closing_table(tmp_path: Path, columns: int) -> None:
    with ascii_output() as told:
        assert runner.tell_table(_sweep(tmp_path / "s"))
    assert _wide(told(), columns) == []


def test_a_preview(tmp_path: Path, columns: int) -> None:
    config = compose_config(["partition=dirichlet", "clients.num=25", "mode=partition"])
    with ascii_output() as told:
        show_partition(config, tmp_path / "out")
    assert _wide(told().replace(str(tmp_path), ""), columns) == []


@pytest.mark.slow  # trains, though only two steps
def test_a_run(tmp_path: Path, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with ascii_output() as told:
        run(*QUICK, "strategy=local_only", "partition=dirichlet_balanced", folder="out")
    assert _wide(told(), columns) == []


def test_help(columns: int) -> None:
    with ascii_output() as told:
        manual.help_program(["strategy", "qfedavg", "training", "tables"])
    assert _wide(told(), columns) == []


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_every_command(columns: int, name: str) -> None:
    with ascii_output() as told, pytest.raises(SystemExit) as ended:
        COMMANDS[name](["--help"])
    assert ended.value.code == 0
    assert _wide(told(), columns) == []


def test_every_topic_of_help(columns: int) -> None:
    chosen = [f"{group}={name}" for group, pages in GROUPS.items() for name in pages.choices()]
    with ascii_output() as told:
        manual.help_program([])
        manual.help_program([*GROUPS, *chosen, "clients", "stop", "tracking"])
    assert _wide(told(), columns) == []


def test_the_line_of_a_round_is_one_line(
    columns: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    numbers = {"accuracy": 0.125, "loss": 2.5}
    with ascii_output() as told:
        terminal = Terminal()
        terminal.begin(RunInfo(compose_config(["rounds=100"]), tmp_path))
        for number in (0, 100):
            report = RoundReport(number, headline=numbers, local=True, judged=numbers)
            terminal.round(report)
        terminal.end(Ending("failed", {}))
    assert _wide(told(), columns) == []
    lines = [line for line in told().splitlines() if "round" in line and "test accuracy" in line]
    assert [line.split()[1] for line in lines] == ["0/100", "100/100"]
    assert all("validation 0.125" in line and "accuracy 0.125" in line for line in lines)
    logged = [line for line in caplog.messages if line.startswith("round ")]
    assert all("local models' mean" in line and "loss 2.500" in line for line in logged)


def test_errors(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError) as raised:
        compose_config(["strategy=nope"])
    complain("fedexp", raised.value)
    assert len(capsys.readouterr().err.splitlines()) == 1  # a pipe's reader looks for lines
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    complain("fedexp", raised.value)
    told = capsys.readouterr().err
    assert told.startswith("fedexp: strategy=nope: ")
    assert _wide(told, columns) == []


@pytest.mark.slow  # whole commands: 60 s
def test_commands_from_the_first_line_to_the_last(tmp_path: Path, columns: int) -> None:
    held_out = ("dataset.validation=0.2", "dataset.validation_by=both", "partition=dirichlet")
    varied = ("strategy=local_only,fedavg", "partition.alpha=0.1,1", "seed=0,1,2")
    tuned = ("strategy=scaffold,local_only", "trials=2", "final_seeds=2")
    commands: list[list[str]] = [
        ["-m", *varied, *held_out, *QUICK, "hydra.sweep.dir=s"],
        ["resume", "s"],
        ["report", "s"],
        ["tune", *tuned, *held_out, *QUICK],
    ]
    for words in commands:
        if words[0] == "resume":
            first = min((tmp_path / "s").glob("*/summary.json"))
            first.write_text('{"status": "interrupted"}')
        found = program(tmp_path, *words)
        assert (found.returncode, found.stderr) == (0, "")
        lines = _wide(found.stdout.replace(str(tmp_path), ""), columns)
        # What a tuning found can be run again by a line that is pasted.
        assert [line for line in lines if not line.startswith("    fedexp -m ")] == []


def test_a_tab_is_as_wide_as_the_terminal_shows_it(columns: int) -> None:
    lines = fitted("\t#0 : " + "option=value " * 20).splitlines()
    assert max(map(len, lines)) <= columns


def test_a_path_is_not_broken_and_a_line_in_a_pipe_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    path = "/".join(["folder"] * 20)
    monkeypatch.setenv("COLUMNS", "80")
    assert path in fitted(f"  {path} cannot be read: no such file").splitlines()[0]
    monkeypatch.delenv("COLUMNS")
    line = f"  {path} cannot be read: no such file"
    assert fitted(line) == line
