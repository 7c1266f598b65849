"""The subcommands of the program, as a user starts them in a folder of their own."""

from __future__ import annotations

import importlib.util
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from support.folders import alone, federated, write_run
from support.programs import program

from fedexp import runner
from fedexp.analysis.comparison import compare
from fedexp.analysis.results import load
from fedexp.analysis.tables import render
from fedexp.commands import COMMANDS
from fedexp.config.composition import plan
from fedexp.config.plugins import REGISTRIES, strangers_in
from fedexp.starting import KINDS, new_program, starting_file

ROOT = Path(__file__).parents[1]


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Return a folder of a federated run and isolated clients, below the folder of the programs."""
    write_run(tmp_path / "out" / "0", "fedavg", federated(0.75, own=(0.5, 1.0)))
    write_run(tmp_path / "out" / "1", "local_only", alone(0.25, 0.5, own=(0.75, 0.75)))
    return tmp_path / "out"


def test_compare_prints_the_closing_table(sweep: Path) -> None:
    found = program(sweep.parent, "compare", "out", spied=True)
    assert (found.returncode, found.stderr) == (0, "")
    *table, imported = found.stdout.splitlines()
    assert "\n".join(table) == f"{render(compare(load(sweep)))}\n\nnext: fedexp report out"
    assert imported == "[]"


def test_compare_of_a_run_that_did_not_complete_is_exit_code_1(sweep: Path) -> None:
    write_run(sweep / "2", "fedadam", [], status="failed", error="disk full")
    found = program(sweep.parent, "compare", "out", "--format", "csv")
    assert found.returncode == 1
    assert found.stdout.splitlines()[0].startswith("row,strategy,runs,diverged,accuracy,")
    assert found.stderr == "note: failed: out/2: disk full\n"


@pytest.mark.parametrize("command", ["compare", pytest.param("report", marks=pytest.mark.slow)])
def test_nothing_to_read_is_exit_code_2(tmp_path: Path, command: str) -> None:
    found = program(tmp_path, command, ".")
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr == (
        f"fedexp {command}: .: no run here (a run's folder holds summary.json)\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow  # draws every figure: 5 s
def test_report_writes_one_file_and_says_which(sweep: Path) -> None:
    found = program(sweep.parent, "report", "out", spied=True)
    assert (found.returncode, found.stderr) == (0, "")
    path, step, imported = found.stdout.splitlines()
    assert (path, step[:6], imported) == ("out/report.html", "next: ", "[]")
    assert "fedavg" in (sweep / "report.html").read_text()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["compare"], "fedexp compare: error: the following arguments are required: folder"),
        (["report", "a", "b"], "fedexp report: error: unrecognized arguments: b"),
        (["reproduce", "nonsense"], "fedexp reproduce: error: argument NAME: invalid choice: "),
        (["new", "sampler", "mine"], "fedexp new: error: argument kind: invalid choice: 'sampler'"),
        (["new", "strategy"], "fedexp new: error: the following arguments are required: name"),
        (["resume"], "fedexp resume: error: the following arguments are required: folder"),
    ],
)
def test_words_that_a_command_does_not_know_are_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], error: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        COMMANDS[words[0]](words[1:])
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(error)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_a_command_says_how_it_is_used(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        COMMANDS[command](["--help"])
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"usage: fedexp {command} ")
    assert any(line.startswith(f"    fedexp {command} ") for line in lines)


def test_what_is_no_command_is_an_experiment(tmp_path: Path) -> None:
    found = program(tmp_path, "results", "out", spied=True)
    assert (found.returncode, found.stdout) == (2, "[]\n")
    assert found.stderr.splitlines() == [
        f"fedexp: {word}: not of the form option=value or group=choice"
        for word in ("results", "out")
    ]


def test_a_command_that_is_misspelt_is_named(tmp_path: Path) -> None:
    found = program(tmp_path, "compares", "out", spied=True)
    assert (found.returncode, found.stdout) == (2, "[]\n")
    assert found.stderr == "fedexp: compares: no such command; did you mean compare?\n"


@pytest.mark.slow
def test_reproduce_hands_on_what_fedexp_says(tmp_path: Path) -> None:
    found = program(tmp_path, "reproduce", "mcmahan_2nn", "rounds=0")
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr == "fedexp: rounds must be >= 1, got 0\n"
    assert list(tmp_path.iterdir()) == []


def test_new_writes_a_file_and_never_over_another(tmp_path: Path) -> None:
    found = program(tmp_path, "new", "strategy", "my_own", spied=True)
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.splitlines() == [
        "wrote my_own.py; run it with",
        "    python my_own.py -m strategy=my_own,fedavg,local_only",
        "[]",
    ]
    file = tmp_path / "my_own.py"
    assert file.read_text() == starting_file("strategy", "my_own")
    assert 'name: str = "my_own"' in file.read_text()
    assert "class MyOwn(Strategy):" in file.read_text()
    file.write_text("mine\n")
    again = program(tmp_path, "new", "metric", "my_own")
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr == "fedexp new: my_own.py is there already; choose another name\n"
    assert file.read_text() == "mine\n"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("name", ["Mine", "9th", "my-own", "my own", "", "../mine", "mine.py"])
def test_a_name_that_the_command_line_could_not_say_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        new_program(["strategy", name])
    assert ended.value.code == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("metric", "none"),  # class None
        ("dataset", "examples"),  # class Examples, which the file itself makes use of
        ("strategy", "client"),
        ("model", "numpy"),  # the file would be imported in place of the package
        ("strategy", "torch"),
        ("strategy", "class"),
        ("strategy", "fedavg"),
        ("metric", "top5"),
        ("attack", "gaussian"),
    ],
)
def test_a_name_that_python_or_fedexp_has_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        new_program([kind, name])
    assert ended.value.code == 2
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(SystemExit) as ended:
        new_program(["strategy", "mine"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "fedexp new: mine.py: No such file or directory\n"


def _command(file: Path) -> list[str]:
    """Return the command that a starting file says it is run with."""
    (line,) = [line for line in file.read_text().splitlines() if line.startswith("    python ")]
    python, script, *words = shlex.split(line)
    assert (python, script) == ("python", file.name)
    return words


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a starting file of every kind, called as the kind is."""
    folder = tmp_path_factory.mktemp("started")
    for kind in KINDS:
        (folder / f"my_{kind}.py").write_text(starting_file(kind, f"my_{kind}"))
    return folder


@pytest.fixture
def module(
    started: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ModuleType]:
    """Import a starting file, and take what it registers away again."""
    name = f"my_{request.param}"
    spec = importlib.util.spec_from_file_location(name, started / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    written = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, written)
    spec.loader.exec_module(written)
    yield written
    REGISTRIES[request.param if request.param != "metric" else "metrics"].forget(name)


@pytest.mark.parametrize("module", KINDS, indirect=True)
def test_a_starting_file_is_a_choice_that_keeps_to_its_contract(module: ModuleType) -> None:
    assert module.__file__ is not None
    words = _command(Path(module.__file__))
    multirun = words[:1] == ["-m"]
    small = ["backend=inline", "training.local_steps=2"]
    jobs = plan([*words[multirun:], *small], multirun=multirun)
    assert len(jobs) == {"my_strategy": 3, "my_attack": 1}.get(module.__name__, 2)
    used = {word for job in jobs for word in strangers_in(job.config)}
    assert {word.partition(" ")[0].rpartition("=")[2] for word in used} == {module.__name__}
    runner.ensure(job.config for job in jobs)


@pytest.mark.slow  # whole commands: 5 to 10 s each
@pytest.mark.parametrize("kind", KINDS)
def test_a_starting_file_runs_as_it_says(started: Path, tmp_path: Path, kind: str) -> None:
    file = tmp_path / f"my_{kind}.py"
    file.write_text((started / file.name).read_text())
    words = _command(file)
    small = ["backend=inline", "rounds=1", "training.local_steps=2"]
    where = ["hydra.run.dir=out", "hydra.sweep.dir=out"]
    found = program(tmp_path, file.name, *words, *small, *where)
    assert (found.returncode, found.stderr) == (0, "")
    runs = load(tmp_path / "out")
    assert runs.problems() == []
    assert len(runs.runs) == {"strategy": 3, "attack": 1}.get(kind, 2)


def test_starting_files_are_in_good_style(tmp_path: Path) -> None:
    for kind in KINDS:
        folder = tmp_path / kind
        folder.mkdir()
        (folder / "mine.py").write_text(starting_file(kind, "mine"))
    settings = ["--config", str(ROOT / "pyproject.toml"), "--config", f"src=['{ROOT}']"]
    for command in (
        ["check", *settings],
        ["format", "--check", *settings],
    ):
        found = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--no-cache", "."],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert found.returncode == 0, found.stdout
