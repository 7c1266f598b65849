"""Every file that docs/extend.md prints: saved as printed, and run as its first lines say."""

from __future__ import annotations

import ast
import json
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from support.bringing import bringing
from support.documents import ROOT, files_in
from support.helpers import leave_out_the_rest
from support.programs import program

from fedexp import api
from fedexp.analysis.results import load

DOCUMENT = ROOT / "docs" / "extend.md"
FEDDYN = ROOT / "tests" / "support" / "feddyn.py"


def _printed() -> dict[str, tuple[str, list[str]]]:
    """Return every file with a command in its docstring: name -> text, and the words after it."""
    found = {}
    for text in files_in(DOCUMENT):
        lines = (ast.get_docstring(ast.parse(text)) or "").replace("\\\n", " ").splitlines()
        for line in lines:
            if line.strip().startswith("python "):
                _, name, *words = shlex.split(line)
                found[name] = (text, words)
                break
    return found


FILES = _printed()
ELSEWHERE = ("in_mlx.py",)
"""What needs an extra; tests/extras runs it."""


@pytest.fixture
def bring(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], ModuleType]]:
    # Most of the time of a small run goes into its pictures and into collecting garbage.
    leave_out_the_rest(monkeypatch)
    with bringing(monkeypatch) as bring_in:
        yield bring_in


def test_there_is_a_file_of_every_kind() -> None:
    kinds = ("strategies", "datasets", "models", "partitions", "metrics", "attacks")
    found = [kind for text, _ in FILES.values() for kind in kinds if f"@{kind}.register" in text]
    assert sorted(set(found)) == sorted(kinds)
    assert len(found) == len(FILES)


def test_the_strategy_is_the_one_that_other_tests_run_everywhere() -> None:
    assert FILES["feddyn.py"][0] == FEDDYN.read_text()
    assert len(FEDDYN.read_text().splitlines()) <= 60


SMALL = ("backend=inline", "rounds=1", "training.local_steps=1", "clients.num=5")
PATIENTS = ("dataset=patients", "partition=stairs", "model=logistic")
ATTACK = ("clients.byzantine.kind=opposite", "clients.byzantine.fraction=0.4")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (
            ["patients.py", "stairs.py", "feddyn.py", "overconfidence.py", "opposite.py"],
            [*PATIENTS, *ATTACK, "strategy=mydyn", "metrics=[accuracy,overconfidence]"],
        ),
        (["patients.py", "stairs.py", "flowers.py"], [*PATIENTS, "strategy=flowers"]),
        (["dropout.py"], ["model=dropout_cnn", "partition=iid", "partition.samples_per_client=20"]),
        (["waves.py"], ["dataset=waves", "partition=population", "model=mlp"]),
    ],
    ids=["all kinds", "flower", "dropout", "population"],
)
def test_files_run(
    names: list[str], words: list[str], tmp_path: Path, bring: Callable[[Path], ModuleType]
) -> None:
    for name in names:
        (tmp_path / name).write_text(FILES[name][0])
        bring(tmp_path / name)
    found = api.run(*words, *SMALL, folder=tmp_path / "run")
    assert found.problems() == []
    environment = json.loads((found.path(0) / "environment.json").read_text())
    used = {plugin["file"] for plugin in environment["plugins"]}
    assert used == {str(tmp_path / name) for name in names}


@pytest.mark.slow  # whole commands: a minute
@pytest.mark.parametrize("name", [name for name in FILES if name not in ELSEWHERE])
def test_a_file_runs_as_it_says(name: str, tmp_path: Path) -> None:
    text, words = FILES[name]
    (tmp_path / name).write_text(text)
    found = program(tmp_path, name, *words, "hydra.sweep.dir=out", "hydra.run.dir=out")
    assert (found.returncode, found.stderr) == (0, "")
    assert load(tmp_path / "out").problems() == []


@pytest.mark.slow  # imports torch in a process of its own
def test_the_test_that_is_printed_passes(tmp_path: Path) -> None:
    (text,) = [text for text in files_in(DOCUMENT) if "def test_" in text]
    (tmp_path / "test_feddyn.py").write_text(text)
    shutil.copy(FEDDYN, tmp_path)
    (tmp_path / "check.py").write_text("import pytest, sys; sys.exit(pytest.main(['-q']))")
    assert program(tmp_path, "check.py").returncode == 0, sys.executable
