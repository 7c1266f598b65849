from __future__ import annotations

import csv
import errno
import hashlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file
from support.helpers import config

from fedexp.core import owner
from fedexp.core.files import HIDDEN, DiscreetFormatter, without_secrets, write_whole
from fedexp.core.options import FedexpError
from fedexp.core.weights import Weights
from fedexp.federation.events import Ending, Failure, Measurement, RoundReport, RunInfo
from fedexp.tracking import environment as tracked
from fedexp.tracking.run_folder import RunFolder


def _rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def _begun(path: Path, **changes: Any) -> RunFolder:
    folder = RunFolder()
    folder.begin(RunInfo(config(**changes), path))
    return folder


def _failed(path: Path, **summary: Any) -> None:
    """Leave the folder of a run that failed at once."""
    _begun(path).end(Ending("failed", {"status": "failed", **summary}))


def test_a_new_folder_says_what_will_run(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    _begun(path, seed=5)
    saved = yaml.safe_load((path / "config.yaml").read_text())
    assert (saved["seed"], saved["clients"]["num"], saved["model"]["hidden"]) == (5, 3, [])
    environment = json.loads((path / "environment.json").read_text())
    assert environment["seed"] == 5
    assert environment["packages"]["flwr"].startswith("1.42.")
    assert environment["plugins"] == []
    head = {"status": "running", "strategy": "fedavg", "kind": "federated", "seed": 5}
    assert json.loads((path / "summary.json").read_text()) == head
    assert _rows(path / "metrics.csv") == [
        ["round", "model", "split", "subset", "client", "metric", "value"]
    ]
    assert _rows(path / "timings.csv") == [["round", "phase", "seconds"]]
    assert _rows(path / "failures.csv") == [["round", "phase", "client", "reason"]]


def test_the_command_and_its_overrides_are_kept_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["/somewhere/fedexp", "seed=1", "+api_key=abc"])
    RunFolder().begin(RunInfo(config(), tmp_path, ["seed=1", "+api_key=abc"]))
    environment = json.loads((tmp_path / "environment.json").read_text())
    assert environment["command"] == ["fedexp", "seed=1", f"+api_key={HIDDEN}"]
    assert environment["overrides"] == ["seed=1", f"+api_key={HIDDEN}"]


def test_tables_are_on_disk_at_once_and_in_full_precision(tmp_path: Path) -> None:
    folder = _begun(tmp_path)
    reason = 'ValueError: a "quoted", comma\nand a line'
    folder.round(
        RoundReport(
            1,
            [Measurement(1, "global", "test", "1-3-7", None, "accuracy", 1 / 3)],
            {"train": 0.25},
            [Failure(1, "train", 2, reason)],
        )
    )
    folder.round(RoundReport(2, [Measurement(2, "local", "client_test", "all", 0, "loss", 0.1)]))
    assert (tmp_path / "metrics.csv").read_text() == (
        "round,model,split,subset,client,metric,value\n"
        "1,global,test,1-3-7,,accuracy,0.3333333333333333\n"
        "2,local,client_test,all,0,loss,0.1\n"
    )
    assert _rows(tmp_path / "timings.csv")[1:] == [["1", "train", "0.250000"]]
    assert _rows(tmp_path / "failures.csv")[1:] == [["1", "train", "2", reason]]


def test_the_ending_writes_the_summary_as_it_is(tmp_path: Path) -> None:
    summary = {"status": "failed", "seed": 3, "seconds": 0.125, "rounds": 0, "error": "why"}
    _begun(tmp_path).end(Ending("failed", summary))
    written = json.loads((tmp_path / "summary.json").read_text())
    table = (tmp_path / "metrics.csv").read_bytes()
    position = {"rows": 0, "bytes": len(table), "sha256": hashlib.sha256(table).hexdigest()}
    assert written == {**summary, "metrics_csv": position}
    assert list(written) == [*summary, "metrics_csv"]
    assert not (tmp_path / "model.safetensors").exists()


def test_a_model_is_saved_bit_for_bit(tmp_path: Path) -> None:
    weights: Weights = {
        "b": np.array([[1.5, -0.0]], dtype=np.float32),
        "a": np.array(3, dtype=np.int64),
    }
    _begun(tmp_path).end(Ending("completed", {}, weights=weights))
    found = load_file(tmp_path / "model.safetensors")
    assert {name: (a.dtype, a.shape, a.tobytes()) for name, a in found.items()} == {
        name: (a.dtype, a.shape, a.tobytes()) for name, a in weights.items()
    }


@pytest.mark.parametrize(
    ("matrices", "lines"),
    [
        ({None: np.array([[3, 1], [0, 4]])}, [",0,3,1", ",1,0,4"]),
        (
            {0: np.array([[3, 1], [0, 4]]), 1: np.eye(2, dtype=int)},
            ["0,0,3,1", "0,1,0,4", "1,0,1,0", "1,1,0,1"],
        ),
    ],
)
def test_confusion_has_a_block_of_rows_a_model(
    tmp_path: Path, matrices: Mapping[int | None, Any], lines: list[str]
) -> None:
    pictures = {"confusion": b"one", "partition": b"other"}
    _begun(tmp_path).end(Ending("completed", {}, confusion=matrices, pictures=pictures))
    assert (tmp_path / "confusion.csv").read_text().splitlines() == [
        "client,true_label,0,1",
        *lines,
    ]
    for name, picture in pictures.items():
        assert (tmp_path / f"{name}.png").read_bytes() == picture


def test_last_numbers_that_a_round_told_already_are_not_written_twice(tmp_path: Path) -> None:
    def own(client: int) -> Measurement:
        return Measurement(1, "global", "client_test", "all", client, "accuracy", client / 4)

    folder = _begun(tmp_path)
    folder.round(RoundReport(1, [own(1)]))
    everybody = [own(0), own(1), own(2)]
    folder.end(Ending("completed", {}, measurements=everybody, reported=frozenset({1})))
    assert [row[4] for row in _rows(tmp_path / "metrics.csv")[1:]] == ["1", "0", "2"]


def test_files_appear_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note = tmp_path / "note.txt"
    write_whole(note, b"old")

    def cut_off(*_: Any) -> None:
        raise OSError(errno.EIO, "the power went")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", cut_off)
        with pytest.raises(OSError, match="the power went"):
            write_whole(note, b"new and longer")
    assert note.read_text() == "old"
    write_whole(note, b"new")
    assert note.read_text() == "new"
    assert not list(tmp_path.glob("*.partial")) + list(tmp_path.glob(".*.partial"))


def test_a_folder_that_holds_a_run_is_not_written_again(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("the user's")
    _failed(tmp_path, error="why")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(FedexpError, match="holds a run already"):
        _begun(tmp_path, seed=5)
    left = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name != owner.FILE}
    assert left == before


def test_a_folder_belongs_to_one_process(tmp_path: Path) -> None:
    folder = _begun(tmp_path)
    with pytest.raises(FedexpError, match=f"is being written by process {os.getpid()} "):
        _begun(tmp_path)
    folder.end(Ending("failed", {"status": "failed"}))
    assert not owner.is_owned(tmp_path)


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
        ("dataset.tokenizer=folder", "dataset.tokenizer=folder"),
        ("tokenizer_token=abc", f"tokenizer_token={HIDDEN}"),
        ("AWS_ACCESS_KEY_ID=AKIA1", f"AWS_ACCESS_KEY_ID={HIDDEN}"),
        ("- +hydra.job.env_set.PLAIN=x\n", f"- +hydra.job.env_set.PLAIN={HIDDEN}\n"),
        ("+hydra.job.env_set={A: x, B: y}", f"+hydra.job.env_set={HIDDEN}"),
        (
            "job:\n  env_set:\n    PLAIN: x\n    OTHER: 'y'\n  env_copy: []\n",
            f"job:\n  env_set:\n    PLAIN: {HIDDEN}\n    OTHER: {HIDDEN}\n  env_copy: []\n",
        ),
        ("env_set: {}\nseed: 1\n", "env_set: {}\nseed: 1\n"),
        ("keypoints: 3\ntask: next_token\n", "keypoints: 3\ntask: next_token\n"),
    ],
)
def test_secrets_are_hidden(text: str, kept: str) -> None:
    assert without_secrets(text) == kept


def test_the_values_of_variables_that_hold_keys_are_hidden(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("WANDB_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "SERVICE_KEY"):
        monkeypatch.setenv(name, f"canary-of-{name.lower()}")
        assert without_secrets(f"refused: canary-of-{name.lower()}!") == f"refused: {HIDDEN}!"
    for name, value in (("TOKENIZERS_PARALLELISM", "falsefalsefalse"), ("MY_TOKEN", "short")):
        monkeypatch.setenv(name, value)
        assert without_secrets(value) == value


def test_a_traceback_in_the_log_is_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    try:
        raise RuntimeError("refused: 0123456789abcdef, password=open")
    except RuntimeError:
        record = logging.LogRecord("x", 40, "", 0, "it failed", (), sys.exc_info())
    text = DiscreetFormatter().format(record)
    assert "Traceback" in text
    assert "0123456789abcdef" not in text
    assert "open" not in text


def test_the_commit_is_the_codes_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*words: str) -> None:
        who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    def checkout() -> dict[str, Any]:
        found = tracked.environment(RunInfo(config(), tmp_path))
        return {name: found[name] for name in ("git_commit", "git_dirty")}

    module = tmp_path / "environment.py"
    module.write_text("1\n")
    monkeypatch.setattr(tracked, "__file__", str(module))
    assert checkout() == {"git_commit": None, "git_dirty": None}  # no repository at all
    git("init")
    git("commit", "--allow-empty", "-m", "the enclosing project's")
    assert checkout() == {"git_commit": None, "git_dirty": None}
    git("add", ".")
    git("commit", "-m", "the code's")
    found = checkout()
    assert (len(str(found["git_commit"])), found["git_dirty"]) == (40, False)
    module.write_text("2\n")
    assert checkout() == {**found, "git_dirty": True}
