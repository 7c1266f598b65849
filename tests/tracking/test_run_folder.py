from __future__ import annotations

import csv
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file
from support.helpers import config

from fedexp.core.files import HIDDEN, without_secrets
from fedexp.core.weights import Weights
from fedexp.tracking import run_folder as records
from fedexp.tracking.run_folder import Metric, RunFolder


def _rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_a_new_folder_says_what_will_run(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    RunFolder(path, config(seed=5))
    saved = yaml.safe_load((path / "config.yaml").read_text())
    assert (saved["seed"], saved["clients"]["num"], saved["model"]["hidden"]) == (5, 3, [])
    environment = json.loads((path / "environment.json").read_text())
    assert environment["seed"] == 5
    assert environment["packages"]["flwr"].startswith("1.42.")
    head = {"status": "running", "strategy": "fedavg", "seed": 5}
    assert json.loads((path / "summary.json").read_text()) == head
    assert _rows(path / "metrics.csv") == [list(Metric._fields)]
    assert _rows(path / "timings.csv") == [["round", "phase", "seconds"]]
    assert _rows(path / "failures.csv") == [["round", "phase", "client", "reason"]]


def test_tables_are_on_disk_at_once_and_in_full_precision(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, config())
    folder.add_metrics([Metric(1, "global", "test", "1-3-7", None, "accuracy", 1 / 3)])
    folder.add_metrics([Metric(2, "local", "client_test", "all", 0, "loss", 0.1)])
    folder.add_timing(1, "train", 0.25)
    folder.add_failures(1, "train", {2: 'ValueError: a "quoted", comma\nand a line'})
    assert (tmp_path / "metrics.csv").read_text() == (
        "round,model,split,subset,client,metric,value\n"
        "1,global,test,1-3-7,,accuracy,0.3333333333333333\n"
        "2,local,client_test,all,0,loss,0.1\n"
    )
    assert _rows(tmp_path / "timings.csv")[1:] == [["1", "train", "0.250000"]]
    reason = 'ValueError: a "quoted", comma\nand a line'
    assert _rows(tmp_path / "failures.csv")[1:] == [["1", "train", "2", reason]]


def test_finish_writes_the_summary(tmp_path: Path) -> None:
    RunFolder(tmp_path, config(seed=3)).finish("failed", error="why")
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert list(summary) == ["status", "strategy", "seed", "seconds", "rounds", "error"]
    assert 0 <= summary.pop("seconds") < 60
    expected = {
        "status": "failed",
        "strategy": "fedavg",
        "seed": 3,
        "rounds": 0,
        "error": "why",
    }
    assert summary == expected


def test_a_model_is_saved_bit_for_bit(tmp_path: Path) -> None:
    weights: Weights = {
        "b": np.array([[1.5, -0.0]], dtype=np.float32),
        "a": np.array(3, dtype=np.int64),
    }
    RunFolder(tmp_path, config()).write_model(weights)
    found = load_file(tmp_path / "model.safetensors")
    assert {name: (a.dtype, a.shape, a.tobytes()) for name, a in found.items()} == {
        name: (a.dtype, a.shape, a.tobytes()) for name, a in weights.items()
    }


def test_files_appear_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(tmp_path, config())
    folder.write_text("note.txt", "old")

    def cut_off(*_: Any) -> None:
        raise OSError("the power went")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", cut_off)
        with pytest.raises(OSError, match="the power went"):
            folder.write_text("note.txt", "new and longer")
    assert (tmp_path / "note.txt").read_text() == "old"
    folder.write_text("note.txt", "new")
    assert (tmp_path / "note.txt").read_text() == "new"
    assert not list(tmp_path.glob("*.partial")) + list(tmp_path.glob(".*.partial"))


def test_a_run_that_is_cut_off_says_how_far_it_came(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, config())
    for server_round in (0, 1, 2):
        folder.end_round(server_round)
    assert folder.finish("interrupted")["rounds"] == 2


def test_a_folder_that_is_used_again_keeps_nothing_of_the_last_run(tmp_path: Path) -> None:
    last = {"partition.json", "model.safetensors", "confusion.csv"}
    last |= {"partition.png", "confusion.png"}
    for name in (*last, "notes.txt"):
        (tmp_path / name).touch()
    RunFolder(tmp_path, config()).finish("failed", error="why")
    assert last < {path.name for path in tmp_path.iterdir()}  # no run's, so the user's
    RunFolder(tmp_path, config()).finish("failed", error="why")
    left = {path.name for path in tmp_path.iterdir()}
    assert not left & last
    assert "notes.txt" in left


def test_a_run_ends_once(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, config())
    completed = folder.finish("completed", final=1)
    assert folder.finish("interrupted") == completed
    assert json.loads((tmp_path / "summary.json").read_text()) == completed


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("WANDB_API_KEY=abc123 rounds=3", f"WANDB_API_KEY={HIDDEN} rounds=3"),
        ("{api-key: 'a b', x: 1}", f"{{api-key: {HIDDEN}, x: 1}}"),
        ('"password": "a b"', f'"password": {HIDDEN}'),
        ("db.passwd=x", f"db.passwd={HIDDEN}"),
        ("+x.token=[a, b]", f"+x.token={HIDDEN}"),
        ("api_key='it''s' seed=1", f"api_key={HIDDEN} seed=1"),
        (r'secret: "x\"y z", seed: 1', f"secret: {HIDDEN}, seed: 1"),
        ("tokens:\n- a\n", "tokens:\n- a\n"),
        ("https://me:p@ss@host/path", f"https://{HIDDEN}@host/path"),
        ("https://me:pw@host/path", f"https://{HIDDEN}@host/path"),
        ("http://host:80/me@home rounds=3", "http://host:80/me@home rounds=3"),
        ("strategy=fedavg", "strategy=fedavg"),
    ],
)
def test_secrets_are_hidden(text: str, kept: str) -> None:
    assert without_secrets(text) == kept


def test_the_commit_is_the_codes_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*words: str) -> None:
        who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    module = tmp_path / "records.py"
    module.write_text("1\n")
    monkeypatch.setattr(records, "__file__", str(module))
    assert records._checkout() == {"git_commit": None, "git_dirty": None}  # no repository at all
    git("init")
    git("commit", "--allow-empty", "-m", "the enclosing project's")
    assert records._checkout() == {"git_commit": None, "git_dirty": None}
    git("add", ".")
    git("commit", "-m", "the code's")
    found = records._checkout()
    assert (len(str(found["git_commit"])), found["git_dirty"]) == (40, False)
    module.write_text("2\n")
    assert records._checkout() == {**found, "git_dirty": True}
