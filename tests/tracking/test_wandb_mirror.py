"""W&B, by reading back real offline runs: nothing is mocked, and no network is needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from fedexp.config.composition import compose_config
from fedexp.config.tracking import TrackingConfig
from fedexp.core.options import FedexpError
from fedexp.experiment import run_experiment
from fedexp.federation.events import RunInfo
from fedexp.tracking.trackers import ensure

CANARY = "c4nary" * 6 + "abcd"  # 40 characters, as long as a real key
SMALL = ("rounds=2", "training.local_epochs=1", "backend=inline", "clients.fraction_evaluate=1")
WANDB = (*SMALL, "tracking=wandb")
TRACKED = (
    *("seed=1", "metrics=[macro_f1]"),
    *("tracking.tags=[mine]", "tracking.log_model=true"),
)


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Take W&B's variables and the user's key away."""
    # Not its service's address: it would be put back when that service is gone.
    theirs = [name for name in os.environ if name.startswith("WANDB_") and name != "WANDB_SERVICE"]
    for variable in theirs:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "wandb-config"))
    yield
    if "wandb" in sys.modules:  # else its settings would stay as this test had them
        sys.modules["wandb"].teardown()


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run with everything on, made once."""
    folder = tmp_path_factory.mktemp("tracked")
    _offline_run(folder, *TRACKED, sweep="sweep-7")
    return folder


def _offline_run(folder: Path, *overrides: str, sweep: str | None = None) -> None:
    config = compose_config([*WANDB, "tracking.mode=offline", *overrides])
    run_experiment(RunInfo(config, folder, overrides, sweep))


@lru_cache
def _records(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Return kind -> records of the one W&B run in a run's folder."""
    (path,) = folder.glob("wandb/*run-*/*.wandb")
    inspect = [sys.executable, "-m", "wandb", "leet", "inspect", str(path), "--json"]
    found = subprocess.run(inspect, capture_output=True, text=True, check=True, timeout=60)
    records: dict[str, list[dict[str, Any]]] = {}
    for line in found.stdout.splitlines():
        record = json.loads(line)
        records.setdefault(record["type"], []).append(record[record["type"]])
    return records


def _merged(updates: list[dict[str, Any]]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for record in updates:
        merged |= record["update"]
    return merged


def _history(folder: Path) -> list[dict[str, Any]]:
    return [record["item"] for record in _records(folder)["history"]]


def test_the_run_says_what_it_is(tracked: Path) -> None:
    (run,) = _records(tracked)["run"]
    assert run["project"] == "fedexp"
    assert run["run_group"] == "sweep-7"
    assert run["job_type"] == "federated"
    assert run["display_name"] == "fedavg-exclude-s1"
    assert run["tags"] == ["fedavg", "mnist5k", "exclude", "mine"]
    saved = yaml.safe_load((tracked / "config.yaml").read_text())
    config = run["config"]["update"]
    assert {name: config[name] for name in saved} == saved


def test_every_figure_of_every_round_is_there(tracked: Path) -> None:
    history = _history(tracked)
    metrics = pd.read_csv(tracked / "metrics.csv")
    server = metrics[(metrics["split"] == "test") & (metrics["model"] == "global")]
    compared = 0
    for row in server.to_dict("records"):
        tail = "" if row["subset"] == "all" else f"/{row['subset']}"
        name = f"global/{row['metric']}{tail}"
        (value,) = [
            item[name] for item in history if item["round"] == row["round"] and name in item
        ]
        assert value == pytest.approx(row["value"], rel=1e-12)
        compared += 1
    assert compared == 3 * 4 * 3  # rounds, subsets, metrics
    own = metrics[(metrics["split"] == "client_test") & (metrics["metric"] == "accuracy")]
    losses = metrics[(metrics["split"] == "train") & (metrics["metric"] == "loss")]
    timings = pd.read_csv(tracked / "timings.csv")
    for server_round in (1, 2):
        (item,) = [h for h in history if h["round"] == server_round and "global/accuracy" in h]
        each = own[(own["round"] == server_round) & own["client"].notna()]["value"]
        assert item["clients/accuracy/mean"] == pytest.approx(each.mean())
        assert item["clients/accuracy/std"] == pytest.approx(each.std(ddof=0))
        assert item["clients/accuracy/min"] == item["clients/accuracy/worst10"] == each.min()
        now = (metrics["split"] == "client_test") & (metrics["round"] == server_round)
        mine = metrics[now & (metrics["metric"] == "macro_f1") & metrics["client"].notna()]
        assert item["clients/macro_f1/mean"] == pytest.approx(mine["value"].mean())
        assert item["clients/failures"] == 0
        (loss,) = losses[losses["round"] == server_round]["value"]
        assert item["clients/train_loss"] == pytest.approx(loss)
        for phase in ("train", "aggregate", "evaluate", "client_evaluate"):
            now = (timings["round"] == server_round) & (timings["phase"] == phase)
            (seconds,) = timings[now]["seconds"]
            assert item[f"time/{phase}"] == pytest.approx(seconds, abs=1e-6)


def test_round_is_the_step_of_all(tracked: Path) -> None:
    defined = _records(tracked)["metric"]
    assert [m["name"] for m in defined if "name" in m] == ["round"]
    assert [(m["glob_name"], m["step_metric"]) for m in defined if "glob_name" in m] == [
        ("*", "round")
    ]


def test_the_summary_has_final_best_and_fairness(tracked: Path) -> None:
    found = _merged(_records(tracked)["summary"])
    summary = json.loads((tracked / "summary.json").read_text())
    assert found["status"] == "completed"
    assert found["final/accuracy"] == pytest.approx(summary["final"]["all"]["accuracy"])
    assert found["final/macro_f1"] == pytest.approx(summary["final"]["all"]["macro_f1"])
    assert found["final/loss/1-3-7"] == pytest.approx(summary["final"]["1-3-7"]["loss"])
    assert found["best/round"] == summary["best"]["round"]
    assert found["fairness/worst10"] == pytest.approx(summary["fairness"]["worst10"])
    assert found["model_sha256"] == summary["model_sha256"]
    assert _records(tracked)["exit"][0].get("exit_code", 0) == 0


def test_pictures_tables_and_the_model_are_there(tracked: Path) -> None:
    summary = _merged(_records(tracked)["summary"])
    (run_dir,) = tracked.glob("wandb/offline-run-*")
    for name in ("confusion", "partition"):
        assert summary[f"pictures/{name}._type"] == "image-file"
        copy = run_dir / "files" / summary[f"pictures/{name}.path"]
        assert copy.read_bytes() == (tracked / f"{name}.png").read_bytes()
    table = json.loads((run_dir / "files" / summary["clients/table.path"]).read_text())
    columns = ["client", "images", "test_images", "labels", "accuracy", "loss", "macro_f1"]
    assert table["columns"] == columns
    sizes = json.loads((tracked / "partition.json").read_text())["num_examples"]
    assert [row[:2] for row in table["data"]] == [[k, size] for k, size in enumerate(sizes)]
    assert table["data"][0][3] == "0 2 4 5 6 8 9"
    counts = json.loads((run_dir / "files" / summary["confusion_table.path"]).read_text())
    drawn = {(true, predicted): n for true, predicted, n in counts["data"]}
    written = pd.read_csv(tracked / "confusion.csv").set_index("true_label").drop(columns="client")
    for true in range(10):
        for predicted in range(10):
            assert drawn[str(true), str(predicted)] == written.loc[true, str(predicted)]
    (model,) = [a for a in _records(tracked)["artifact"] if a["type"] == "model"]
    assert sorted(model["aliases"]) == ["final", "latest"]
    kept = {entry["path"]: Path(entry["local_path"]) for entry in model["manifest"]["contents"]}
    assert sorted(kept) == ["best.safetensors", "model.safetensors"]
    for name, copy in kept.items():
        assert copy.read_bytes() == (tracked / name).read_bytes()


def test_a_repeated_run_has_the_same_id(tracked: Path, tmp_path: Path) -> None:
    from fedexp.tracking.wandb import run_id

    config = compose_config([*WANDB, "tracking.mode=offline", *TRACKED])
    (run,) = _records(tracked)["run"]
    assert run["run_id"] == run_id(RunInfo(config, tracked))
    assert run["run_id"] != run_id(RunInfo(config, tmp_path))
    assert run["run_id"] != run_id(RunInfo(compose_config([*WANDB, "seed=2"]), tracked))


@pytest.mark.slow
def test_auto_without_a_key_is_offline_and_says_how_to_sync(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_experiment(RunInfo(compose_config([*WANDB, "strategy=local_only"]), tmp_path))
    said = capsys.readouterr()
    (folder,) = tmp_path.glob("wandb/offline-run-*")
    assert f"wandb sync {os.path.relpath(folder)}" in said.out
    assert said.err == ""
    (run,) = _records(tmp_path)["run"]
    assert (run["job_type"], run["display_name"]) == ("isolated", "local_only-exclude-s0")
    assert "run_group" not in run
    metrics = pd.read_csv(tmp_path / "metrics.csv")
    final = metrics.query("round == 2 and split == 'test' and subset == 'all'")
    values = [item["local/accuracy"] for item in _history(tmp_path) if "local/accuracy" in item]
    mean = final[final["metric"] == "accuracy"]["value"].mean()
    assert len(values) == 3
    assert values[-1] == pytest.approx(mean)


@pytest.mark.slow
def test_variables_win_over_defaults_and_options_over_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"PROJECT": "theirs", "NAME": "theirs", "RUN_GROUP": "theirs"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    _offline_run(tmp_path, "tracking.name=mine", sweep="sweep")
    (run,) = _records(tmp_path)["run"]
    assert (run["project"], run["run_group"], run["display_name"]) == ("theirs", "theirs", "mine")


@pytest.mark.parametrize(
    ("names", "limits"),
    [
        ({"tags": ["t" * 65]}, {"tracking.tags": "64"}),
        ({"tags": ["fine", ""]}, {"tracking.tags": "1 and 64"}),
        ({"project": "p" * 129}, {"tracking.project": "128"}),
        (
            {"name": "n" * 129, "group": "g" * 129},
            {"tracking.group": "128", "tracking.name": "128"},
        ),
        ({"job_type": "j" * 65}, {"tracking.job_type": "64"}),
        ({"project": "a/b", "tags": ["t" * 65]}, {"tracking.tags": "64", "tracking.project": "/"}),
    ],
)
def test_what_wandb_would_refuse_is_refused_beforehand(
    names: dict[str, Any], limits: dict[str, str]
) -> None:
    with pytest.raises(FedexpError) as caught:
        ensure(TrackingConfig(wandb=True, mode="offline", **names))
    lines = str(caught.value).splitlines()
    assert [line.split(":")[0] for line in lines] == list(limits)
    for line, limit in zip(lines, limits.values(), strict=True):
        assert limit in line
    ensure(TrackingConfig(wandb=True, mode="disabled", **names))
    ensure(TrackingConfig(wandb=True, mode="offline", tags=["t" * 64], project="p" * 128))


def test_variables_that_wandb_would_refuse_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "a/b")
    monkeypatch.setenv("WANDB_TAGS", f"fine,{'t' * 65}")
    with pytest.raises(FedexpError) as caught:
        ensure(TrackingConfig(wandb=True, mode="offline"))
    options = [line.split(":")[0] for line in str(caught.value).splitlines()]
    assert options == ["WANDB_RUN_ID", "WANDB_TAGS"]


@pytest.mark.slow  # three runs with W&B
def test_an_id_that_is_told_is_for_a_single_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "fixedid")
    _offline_run(tmp_path / "alone")
    assert "WANDB_RUN_ID" not in capsys.readouterr().out
    for job in ("0", "1"):
        _offline_run(tmp_path / job, f"seed={job}", sweep="sweep-7")
        assert "WANDB_RUN_ID is for single runs" in capsys.readouterr().out
    ids = [_records(tmp_path / name)["run"][0]["run_id"] for name in ("alone", "0", "1")]
    assert ids[0] == "fixedid"
    assert len(set(ids)) == 3


def test_wandb_mode_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    folder = tmp_path / "run"
    run_experiment(RunInfo(compose_config([*WANDB, "tracking.mode=online"]), folder))
    assert not (folder / "wandb").exists()
    monkeypatch.setenv("WANDB_MODE", "onlin")
    with pytest.raises(FedexpError, match="WANDB_MODE must be online, offline or disabled"):
        run_experiment(RunInfo(compose_config([*WANDB]), tmp_path))


def test_a_failed_run_ends_as_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FedexpError):
        _offline_run(tmp_path, "training.learning_rate=1e30")
    assert _records(tmp_path)["exit"][0]["exit_code"] == 1
    assert _merged(_records(tmp_path)["summary"])["status"] == "failed"
    assert "wandb sync" in capsys.readouterr().out


def _command(folder: Path, *overrides: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fedexp", *overrides],
        cwd=folder,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow  # two tracked runs in a process of their own, read back: 10 s
def test_a_multirun_makes_separate_runs_in_one_group_and_keys_reach_no_file(tmp_path: Path) -> None:
    found = _command(
        tmp_path,
        "-m",
        *WANDB,
        "seed=0,1",
        "hydra.sweep.dir=out/sweep",
        f"+hydra.job.env_set.WANDB_API_KEY={CANARY}",
        WANDB_API_KEY=CANARY,
        WANDB_MODE="offline",
    )
    assert found.returncode == 0, found.stderr
    runs = [_records(folder)["run"][0] for folder in sorted(tmp_path.glob("out/sweep/*-s*"))]
    assert [run["display_name"] for run in runs] == ["fedavg-exclude-s0", "fedavg-exclude-s1"]
    assert {run["run_group"] for run in runs} == {"out-sweep"}
    assert len({run["run_id"] for run in runs}) == 2
    for folder in tmp_path.glob("out/sweep/*-s*"):
        assert len(_records(folder)["exit"]) == 1
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 30
    assert [path for path in files if CANARY.encode() in path.read_bytes()] == []
    assert CANARY not in found.stdout + found.stderr


@pytest.mark.slow
def test_online_without_a_key_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    found = _command(tmp_path, *WANDB, "tracking.mode=online", "hydra.run.dir=out")
    assert found.returncode == 2
    assert found.stderr.splitlines() == [
        "fedexp: tracking.mode=online needs a W&B key: run `wandb login` or set WANDB_API_KEY, "
        "or use tracking.mode=offline"
    ]
    assert not (tmp_path / "out").exists()


@pytest.mark.slow  # whole commands: 5 to 10 s
def test_without_wandb_it_is_not_imported(tmp_path: Path) -> None:
    code = (
        "import sys; from fedexp.config.composition import compose_config; "
        "from fedexp.federation.events import RunInfo; "
        "from fedexp.experiment import run_experiment; from pathlib import Path; "
        f"run_experiment(RunInfo(compose_config({[*SMALL]!r}), Path('out'))); "
        "print('imported', 'wandb' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert run.stdout.splitlines()[-1] == "imported False"


@pytest.mark.slow  # whole commands: 5 to 10 s
def test_a_wandb_sweep_drives_the_program_through_its_agents_variables(tmp_path: Path) -> None:
    sweep = yaml.safe_load((Path(__file__).parents[2] / "scripts" / "sweep.yaml").read_text())
    chosen = {name: spec["values"][0] for name, spec in sweep["parameters"].items()}
    program, *told = sweep["command"]
    assert (program, told.pop()) == ("fedexp", "${args_no_hyphens}")
    parameters = tmp_path / "parameters.yaml"  # as an agent writes it for its program
    parameters.write_text(yaml.safe_dump({name: {"value": v} for name, v in chosen.items()}))
    found = _command(
        tmp_path,
        *told,
        *(f"{name}={value}" for name, value in chosen.items()),
        *SMALL,
        "hydra.run.dir=out",
        WANDB_MODE="offline",
        WANDB_SWEEP_ID="sweep1",
        WANDB_RUN_ID="run1",
        WANDB_PROJECT="theirs",
        WANDB_SWEEP_PARAM_PATH=str(parameters),
    )
    assert found.returncode == 0, found.stderr
    (run,) = _records(tmp_path / "out")["run"]
    assert (run["run_id"], run["project"], run["sweep_id"]) == ("run1", "theirs", "sweep1")
    assert run["display_name"] == "fedavg-exclude-s0"
    measured = sweep["metric"]["name"]
    assert [item[measured] for item in _history(tmp_path / "out") if measured in item]
    assert found.stderr == ""
