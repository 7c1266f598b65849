from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import pytest

from fedexp.analysis.results import Results, load
from fedexp.core.options import FedexpError
from fedexp.reproduce import niid_bench, pfllib_fmnist, reproduce_program, running
from fedexp.reproduce.lines import Direction, Line, Told
from fedexp.reproduce.published import EXPERIMENTS, synthetic

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "reproduce.py"
REFERENCE = ROOT / "results" / "reference"
SHORT = ["dataset=mnist5k", "training.local_epochs=1", "backend=inline"]


def _start(folder: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-u", str(SCRIPT), *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, cwd=folder, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )


@pytest.mark.slow  # whole commands: 10 s each
def test_figures_out_of_tolerance_fail_and_are_not_written(tmp_path: Path) -> None:
    before = (REFERENCE / "lesson.csv").read_bytes()
    process = _start(tmp_path, "lesson", *SHORT)
    output, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (1, "")
    lines = [line for line in output.splitlines() if re.match("pass|FAIL", line)]
    assert len(lines) == 15
    # Of 5,000 digits no client has the sizes of 60,000; what it never saw it still does not know.
    assert [line[:4] for line in lines if "images of client" in line] == ["FAIL"] * 3
    assert [line[:4] for line in lines if "unseen" in line] == ["pass"] * 3
    assert output.splitlines()[-1] == "not written: overrides make this another experiment"
    assert (REFERENCE / "lesson.csv").read_bytes() == before
    assert len(list((tmp_path / "results" / "lesson").glob("*/*/metrics.csv"))) == 2


@pytest.mark.slow  # whole commands: 10 s each
def test_runs_that_are_too_many_are_named(tmp_path: Path) -> None:
    process = _start(tmp_path, "lesson", *SHORT, "rounds=1", "seed=0,1")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert re.fullmatch(r"fedexp reproduce: lesson is 2 run\(s\), .* made 4 of it: .*\n", errors)


@pytest.mark.slow  # whole commands: 10 s each
def test_quick_says_where_it_stands(tmp_path: Path) -> None:
    words = [*SHORT, "clients.num=3", "model=logistic", "rounds=2"]
    process = _start(tmp_path, "niid_fmnist", "--quick", *words)
    output, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")
    *_, standing, published = output.splitlines()
    assert re.fullmatch(
        r"fedavg after round 2: accuracy 0\.\d{3}, best 0\.\d{3} \(round \d+\)", standing
    )
    assert published == "published: 0.88 +- 0.02 at best in 50 rounds"


@pytest.mark.slow  # whole commands: 10 s each
@pytest.mark.parametrize("kill", [os.killpg, os.kill], ids=["terminal", "kill -INT"])
def test_an_interrupted_one_says_where_it_stands(
    tmp_path: Path, kill: Callable[[int, int], None]
) -> None:
    process = _start(tmp_path, "niid_fmnist", *SHORT, "clients.num=3", "rounds=20")
    assert process.stdout is not None
    for line in process.stdout:
        if "round 3/" in line:
            break
    time.sleep(0.2)
    kill(process.pid, signal.SIGINT)  # Ctrl-C sends it to the whole group
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in output + errors
    assert re.search(r"^fedavg after round \d+: accuracy", output, re.MULTILINE)
    goes_on = shlex.split(output.splitlines()[-1])
    assert goes_on[:4] == ["go", "on:", "fedexp", "reproduce"]
    process = _start(tmp_path, *goes_on[4:])
    output, errors = process.communicate(timeout=120)
    assert (process.returncode in (0, 1), errors) == (True, "")  # as 5,000 digits have it
    assert sum("best accuracy" in line for line in output.splitlines()) == 1
    assert load(tmp_path).curves["round"].nunique() == 21


@pytest.mark.parametrize("words", [["lesson", "--quick"], ["nonsense"]])
def test_what_cannot_be_run_is_refused(tmp_path: Path, words: list[str]) -> None:
    process = _start(tmp_path, *words)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "error: " in errors.splitlines()[-1]


@pytest.mark.slow
def test_a_dataset_that_is_not_there_is_told_by_fedexp(tmp_path: Path) -> None:
    process = _start(tmp_path, "mcmahan_2nn", "rounds=0")
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (2, "")
    assert errors == "fedexp: rounds must be >= 1, got 0\n"


def _results(worst_of_q1: float, rows: int = 2) -> Results:
    """Each strategy of the stragglers, each q, by two seeds; ten clients, of which one is worst."""
    runs, curves, finals, settings = (list[dict[str, object]]() for _ in range(4))
    for seed in range(rows):
        for strategy, q, ends in (
            ("fedprox", None, 0.8),
            ("fedavg", None, 0.6 + 0.3 * seed),
            ("qfedavg", 0.0, 0.7),
            ("qfedavg", 1.0, 0.7),
        ):
            run = len(runs)
            runs.append({"strategy": strategy, "seed": seed, "status": "completed"})
            settings.append({"strategy.q": q})
            base = {"run": run, "split": "test", "subset": "all", "metric": "accuracy"}
            curves += [{**base, "round": k, "value": 0.0 if k < 11 else ends} for k in range(31)]
            worst = worst_of_q1 if q == 1.0 else 0.2
            finals += [
                {**base, "split": "client_test", "client": k, "value": 0.9 if k else worst}
                for k in range(10)
            ]
    frames = [pd.DataFrame(part) for part in (runs, settings, curves, finals)]
    return Results(*frames)


def test_directions_are_told_by_seed() -> None:
    """The last 20 of 30 rounds; with seed 1, FedAvg is the better one."""
    stragglers, fair = synthetic(_results(worst_of_q1=0.3))
    assert list(stragglers.better) == pytest.approx([0.8, 0.8])
    assert list(stragglers.other) == pytest.approx([0.6, 0.9])
    assert not stragglers.passed
    assert (list(fair.better), list(fair.other)) == ([0.3, 0.3], [0.2, 0.2])
    assert fair.passed
    assert fair.row()[1] == pytest.approx(0.1)


def test_what_is_equal_or_was_never_run_is_no_direction() -> None:
    assert not synthetic(_results(worst_of_q1=0.2))[1].passed
    assert not Direction("nothing", [], []).passed


@pytest.mark.slow  # whole commands: three of them
def test_an_experiment_of_several_parts(tmp_path: Path) -> None:
    words = ["backend=inline", "rounds=1", "training.local_steps=2", "dataset.devices=10", "seed=0"]
    process = _start(tmp_path, "synthetic", *words, "clients.fraction_train=1")
    output, errors = process.communicate(timeout=300)
    assert len([line for line in output.splitlines() if line.startswith("part ")]) == 3
    pattern = r"fedexp reproduce: synthetic is 16 run\(s\), .* made 4 of it: .*\n"
    assert re.fullmatch(pattern, errors)
    found = load(next((tmp_path / "results" / "synthetic").iterdir()))
    assert [line.what[:7] for line in synthetic(found)] == ["FedProx", "q=1, q="]
    assert [len(line.better) for line in synthetic(found)] == [1, 1]


# --- NIID-Bench's table ---------------------------------------------------------------------------


def _grid(ends: dict[tuple[str, str], float], rounds: int = 5) -> Results:
    """Every cell by its published mean in every round, unless it is told where the last rounds are."""
    runs, curves, settings = (list[dict[str, object]]() for _ in range(3))
    columns: dict[str, tuple[str, int | None]] = {
        "IID": ("iid", None),
        "Dir(0.5)": ("dirichlet", None),
    }
    columns |= {f"#C={k}": ("classes", k) for k in (1, 2, 3)}
    published = {**niid_bench.PUBLISHED, "local_only": dict.fromkeys(columns, (0.2, 0.0))}
    for strategy, means in published.items():
        for column, (mean, _) in means.items():
            cell = strategy, column
            name, labels = columns[column]
            status = "diverged" if ends.get(cell) == 0.0 else "completed"
            base = {"run": len(runs), "split": "test", "subset": "all", "metric": "accuracy"}
            runs.append({"strategy": strategy, "seed": 0, "status": status})
            settings.append({"partition.name": name, "partition.classes_per_client": labels})
            last = ends.get(cell, mean)
            curves += [
                {**base, "round": k, "value": mean if k < rounds - 3 else last}
                for k in range(rounds)
            ]
    shown = pd.DataFrame(settings, dtype=object)  # as results.load has it
    return Results(pd.DataFrame(runs), shown, pd.DataFrame(curves), pd.DataFrame())


def _failed(lines: Sequence[Line]) -> list[str]:
    return [line.what for line in lines if line.passed is False]


def test_the_published_table_passes_but_for_the_mean_that_no_run_has() -> None:
    lines = niid_bench.niid_bench(_grid({}))
    assert _failed(lines) == ["scaffold, #C=2, best round"]
    assert len(lines) == 25
    assert [line.row()[1:] for line in lines if isinstance(line, Told)] == [[0.2, "", ""]] * 5


def test_the_best_round_counts_in_the_whole_table_and_the_last_rounds_in_the_short_one() -> None:
    ends = {("scaffold", "#C=1"): 0.0, ("scaffold", "#C=2"): 0.1, ("fednova", "#C=2"): 0.1}
    found = _grid(ends)
    assert _failed(niid_bench.niid_bench(found)) == ["scaffold, #C=2, best round"]
    assert _failed(niid_bench.quick(found)) == ["fednova, #C=2, last 3 rounds"]


def test_a_short_table_in_which_nothing_collapses_or_the_order_is_another_fails() -> None:
    ends = {("scaffold", "#C=2"): 0.5, ("fedavg", "#C=3"): 0.9}
    assert _failed(niid_bench.quick(_grid(ends))) == [
        "scaffold, #C=2, last 3 rounds",
        "fedavg, Dir(0.5) above #C=3",
    ]


def test_a_table_of_other_runs_is_refused() -> None:
    found = _grid({})
    found.settings["partition.name"] = "shards"
    with pytest.raises(FedexpError, match=r"^no run of fedavg, IID, is here: "):
        niid_bench.niid_bench(found)


# --- PFLlib's table -------------------------------------------------------------------------------


def _own_images(personal: float) -> Results:
    """Two clients with 0.3 and 0.5 by FedAvg, and with the given mean by what personalises."""
    runs, settings, finals = (list[dict[str, object]]() for _ in range(3))
    for name in pfllib_fmnist.PARTITIONS:
        for strategy in (*pfllib_fmnist.PUBLISHED, "local_only"):
            base = {"run": len(runs), "split": "client_test", "subset": "all", "metric": "accuracy"}
            runs.append({"strategy": strategy, "seed": 0, "status": "completed"})
            settings.append({"partition.name": name})
            # The global model of what personalises is another point, and counts nowhere.
            means = {"global": 0.4} if strategy == "fedavg" else {"global": 0.4, "local": personal}
            finals += [
                {**base, "client": client, "model": model, "value": mean - 0.1 + 0.2 * client}
                for model, mean in means.items()
                for client in (0, 1)
            ]
    return Results(*map(pd.DataFrame, (runs, settings, [], finals)))


@pytest.mark.parametrize(("personal", "failed"), [(0.49, 8), (0.51, 0), (0.9, 0)])
def test_what_personalises_must_be_far_above_fedavg(personal: float, failed: int) -> None:
    lines = pfllib_fmnist.pfllib_fmnist(_own_images(personal))
    assert (len(lines), len(_failed(lines))) == (20, failed)
    ours = {line.what: line.ours for line in lines if isinstance(line, Told)}
    assert ours["fedavg, #C=2, own images"] == pytest.approx(0.4)
    assert ours["isolated clients, Dir(0.1), own images"] == pytest.approx(personal)


# --- commands, one after another ------------------------------------------------------------------


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], Path | None]]:
    """What would be run; nothing is."""
    ran: list[tuple[list[str], Path | None]] = []

    def run(words: Sequence[str], folder: Path | None) -> int:
        ran.append((list(words), folder))
        return 0

    monkeypatch.setattr(running, "_run", run)
    return ran


def _run_folder(folder: Path, status: str) -> None:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("seed: 0\n")
    (folder / "summary.json").write_text(json.dumps({"status": status, "strategy": "fedavg"}))


def test_what_is_complete_is_not_run_again(
    tmp_path: Path, commands: list[tuple[list[str], Path | None]]
) -> None:
    job = running.Reproduction("synthetic", quick=True, overrides=("dataset.devices=10",))
    for seed in range(5):
        _run_folder(tmp_path / "1" / str(seed), "diverged")
    _run_folder(tmp_path / "2" / "0", "interrupted")
    (tmp_path / "2" / "sweep.json").write_text("{}")
    job.write(tmp_path)
    kept = running.read(tmp_path, "synthetic")
    assert kept == job
    assert running.run_parts(kept, tmp_path, ["backend=inline"]) == 0
    changes = ["rounds=10", "dataset.devices=10", "backend=inline"]
    assert commands == [
        (["resume", str(tmp_path / "2"), "backend=inline"], None),
        (["experiment=synthetic_fairness", *changes], tmp_path / "3"),
    ]


@pytest.mark.parametrize(
    ("name", "statuses", "code"),
    [
        ("niid_bench", ["completed", "diverged"], 0),
        ("niid_bench", ["diverged", "failed"], 1),
        ("synthetic", ["completed", "diverged"], 1),
    ],
)
def test_runs_that_diverge_end_only_what_did_not_expect_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    statuses: list[str],
    code: int,
) -> None:
    def run(words: Sequence[str], folder: Path | None) -> int:
        assert folder is not None
        for number, status in enumerate(statuses):
            _run_folder(folder / str(number), status)
        return 1

    monkeypatch.setattr(running, "_run", run)
    job = running.Reproduction(name, quick=True, overrides=())
    assert running.run_parts(job, tmp_path) == code
    assert len(list(tmp_path.iterdir())) == (len(EXPERIMENTS[name].parts) if code == 0 else 1)


def _kept(name: str) -> str:
    return json.dumps({"name": name, "quick": False, "overrides": []})


@pytest.mark.parametrize(
    ("content", "words", "told"),
    [
        (None, [], "no reproduction was begun here"),
        ("{", [], "cannot be read"),
        (_kept("lesson"), [], "of lesson, not of synthetic"),
        (_kept("synthetic"), ["rounds=3"], "rounds=3: would make this another experiment"),
        (_kept("synthetic"), ["--quick"], "was begun without --quick"),
    ],
)
def test_only_what_was_begun_is_gone_on_with(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: str | None,
    words: list[str],
    told: str,
) -> None:
    if content is not None:
        (tmp_path / "reproduce.json").write_text(content)
    with pytest.raises(SystemExit) as ended:
        reproduce_program(["synthetic", "--resume", str(tmp_path), *words])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fedexp reproduce: ")
    assert told in line


def test_every_command_is_of_an_experiment_that_is_there() -> None:
    presets = {path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml")}
    for experiment in EXPERIMENTS.values():
        for part in experiment.parts:
            assert part.overrides[0].removeprefix("experiment=") in presets
