"""No command writes a line that a terminal of 80 or 120 columns would wrap, in ASCII too."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from support.folders import alone, federated, write_run

from fedexp import manual, runner
from fedexp.analysis.programs import compare_program
from fedexp.api import run
from fedexp.config.composition import compose_config
from fedexp.core.terminal import fitted
from fedexp.preview import show_partition

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


def test_a_path_is_not_broken_and_a_line_in_a_pipe_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    path = "/".join(["folder"] * 20)
    monkeypatch.setenv("COLUMNS", "80")
    assert path in fitted(f"  {path} cannot be read: no such file").splitlines()[0]
    monkeypatch.delenv("COLUMNS")
    line = f"  {path} cannot be read: no such file"
    assert fitted(line) == line
