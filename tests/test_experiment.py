from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file
from support.helpers import config, metrics, run, tiny_data, with_fault

from fedexp import experiment
from fedexp.config.clients import ClientsConfig
from fedexp.config.composition import compose_config
from fedexp.config.schema import StopConfig
from fedexp.core import signals
from fedexp.core.options import FedexpError
from fedexp.core.weights import hash_weights
from fedexp.experiment import Attempt
from fedexp.federation.conclusion import objective
from fedexp.federation.events import Listener
from fedexp.strategies.local_only import LocalOnly
from fedexp.tracking.terminal import Terminal

RunOf = Callable[..., Path]
SUBSETS = ["all", "1-3-7", "2-5-8", "4-6-9"]
FILES = [
    *[
        "best.safetensors",
        "checkpoint",
        "config.yaml",
        "confusion.csv",
        "confusion.png",
        "environment.json",
        "failures.csv",
    ],
    *["metrics.csv", "model.safetensors", "partition.json", "partition.png", "summary.json"],
    "timings.csv",
]


@pytest.fixture(scope="module")
def lesson(run_of: RunOf) -> Path:
    return run_of("backend=inline")


@pytest.fixture(scope="module")
def isolated(run_of: RunOf) -> Path:
    return run_of("backend=inline", "strategy=local_only")


def _summary(folder: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return summary


def test_a_run_leaves_these_files_and_no_others(lesson: Path, isolated: Path) -> None:
    assert sorted(path.name for path in lesson.iterdir()) == FILES
    assert sorted(path.name for path in isolated.iterdir()) == FILES


def test_the_summary_says_what_came_out(lesson: Path) -> None:
    summary = _summary(lesson)
    keys = ["status", "strategy", "kind", "seed", "seconds", "rounds", "stopped_early"]
    more = ["selected_on", "selected_by", "final", "best", "fairness", "clients", "byzantine"]
    more += ["model_sha256", "best_sha256", "partition_sha256", "metrics_csv"]
    assert list(summary) == keys + more
    assert (summary["status"], summary["strategy"], summary["seed"]) == ("completed", "fedavg", 0)
    assert (summary["rounds"], summary["stopped_early"]) == (2, False)
    assert summary["seconds"] > 0
    assert sorted(summary["final"]) == sorted(SUBSETS)


def test_metrics_hold_every_round_model_and_subset(lesson: Path) -> None:
    table = metrics(lesson)
    columns = ["round", "model", "split", "subset", "client", "metric", "value"]
    assert list(table) == columns
    test = table.query("split == 'test'")
    assert test[["round", "subset", "metric"]].to_numpy().tolist() == [
        [server_round, subset, metric]
        for server_round in (0, 1, 2)
        for subset in SUBSETS
        for metric in ("accuracy", "loss")
    ]
    assert set(test["model"]) == {"global"}
    assert test["client"].isna().all()
    training = table.query("split == 'train'")[["round", "model", "subset", "metric", "value"]]
    size = 4 * (784 * 128 + 128 + 128 * 10 + 10)  # the model's float32 numbers, to and from three
    losses = [row for row in training.to_numpy().tolist() if row[3] == "loss"]
    assert [row[:3] for row in losses] == [[1, "local", "all"], [2, "local", "all"]]
    assert [row for row in training.to_numpy().tolist() if row[3] != "loss"] == [
        [k, "global", "all", name, 3 * size] for k in (1, 2) for name in ("bytes_down", "bytes_up")
    ]


def test_every_clients_share_is_scored_at_the_end(lesson: Path, isolated: Path) -> None:
    for folder, model in ((lesson, "global"), (isolated, "local")):
        rows = metrics(folder).query("split == 'client_test'")
        assert set(rows["round"]) == {2}
        assert set(rows["model"]) == {model}
        found = rows.query("metric == 'accuracy'")["value"].tolist()
        fairness = _summary(folder)["fairness"]
        assert len(found) == 3
        assert fairness["mean"] == pytest.approx(sum(found) / 3, abs=1e-12)
        assert fairness["min"] == fairness["worst10"] == min(found)


def test_clients_that_evaluated_themselves_are_not_scored_twice(
    run_of: RunOf, lesson: Path
) -> None:
    folder = run_of("backend=inline", "clients.fraction_evaluate=0.67")
    rows = metrics(folder).query("split == 'client_test' and metric == 'accuracy'")
    last = rows.query("round == 2 and client == client")
    assert sorted(last["client"]) == [0, 1, 2]
    assert len(rows.query("round == 1 and client == client")) == 2
    # Who evaluates changes nothing: the figures are those of the run in which nobody did.
    assert _summary(folder)["fairness"] == _summary(lesson)["fairness"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("accuracy", 0.7), ("loss", 1.5), ("best_accuracy", 0.8), ("worst10", 0.2)],
)
def test_the_objective_is_the_figure_that_is_named(name: str, expected: float) -> None:
    summary = {
        "final": {"all": {"accuracy": 0.7, "loss": 1.5}},
        "best": {"round": 1, "accuracy": 0.8},
        "fairness": {"worst10": 0.2},
    }
    assert objective(config(objective=name), summary) == expected


def test_the_final_figures_are_the_last_rows(lesson: Path) -> None:
    rows = metrics(lesson).query("split == 'test' and round == 2")
    found = rows.pivot(index="metric", columns="subset", values="value").to_dict()
    assert _summary(lesson)["final"] == found
    headline = metrics(lesson).query("split == 'test' and subset == 'all' and metric == 'accuracy'")
    curve = headline["value"].tolist()
    expected = {"round": curve.index(max(curve)), "accuracy": max(curve)}
    assert _summary(lesson)["best"] == expected


def test_accuracy_on_all_is_that_of_the_subsets_and_of_label_0(lesson: Path) -> None:
    with (lesson / "confusion.csv").open(newline="") as file:
        header, *rows = list(csv.reader(file))
    assert header == ["client", "true_label", *map(str, range(10))]
    assert [row[:2] for row in rows] == [["", str(label)] for label in range(10)]
    counts = np.array([[int(count) for count in row[2:]] for row in rows])
    assert counts.sum(axis=1).tolist() == [100] * 10  # mnist5k tests on 100 images of each digit
    final = _summary(lesson)["final"]
    assert final["all"]["accuracy"] == np.trace(counts) / 1000
    for subset in SUBSETS[1:]:
        labels = [int(label) for label in subset.split("-")]
        right = sum(counts[label, label] for label in labels)
        assert final[subset]["accuracy"] == pytest.approx(right / 300, abs=1e-12)


def test_isolated_clients_never_name_a_label_they_never_saw(isolated: Path) -> None:
    with (isolated / "confusion.csv").open(newline="") as file:
        rows = [[int(cell) for cell in row] for row in list(csv.reader(file))[1:]]
    assert [row[:2] for row in rows] == [[k, label] for k in range(3) for label in range(10)]
    for client, unseen in enumerate([[1, 3, 7], [2, 5, 8], [4, 6, 9]]):
        counts = np.array([row[2:] for row in rows if row[0] == client])
        assert np.flatnonzero(counts.sum(axis=0) == 0).tolist() == unseen
        accuracy = _summary(isolated)["clients"][str(client)]["all"]["accuracy"]
        assert accuracy == np.trace(counts) / 1000


def test_the_saved_model_is_the_one_that_was_hashed(lesson: Path, isolated: Path) -> None:
    model = load_file(lesson / "model.safetensors")
    shapes = {name: array.shape for name, array in model.items()}
    expected = {"1.weight": (128, 784), "1.bias": (128,), "3.weight": (10, 128), "3.bias": (10,)}
    assert shapes == expected
    assert all(array.dtype == np.float32 for array in model.values())
    # safetensors sorts names by size; the hash takes them in the model's order.
    assert _summary(lesson)["model_sha256"] == hash_weights({k: model[k] for k in expected})
    models = load_file(isolated / "model.safetensors")
    in_order = {f"{k}/{name}": models.pop(f"{k}/{name}") for k in range(3) for name in expected}
    assert not models
    assert _summary(isolated)["model_sha256"] == hash_weights(in_order)


def test_local_models_are_reported_one_by_one_and_as_a_mean(isolated: Path) -> None:
    summary = _summary(isolated)
    assert list(summary["clients"]) == ["0", "1", "2"]
    rows = metrics(isolated).query("split == 'test'")
    assert set(rows["model"]) == {"local"}
    assert len(rows) == 3 * 3 * 4 * 2  # rounds, clients, subsets, metrics
    last = rows.query("round == 2 and metric == 'accuracy'")
    for subset in SUBSETS:
        found = last.query("subset == @subset")["value"].tolist()
        clients = [summary["clients"][str(k)][subset]["accuracy"] for k in range(3)]
        assert found == clients
        assert summary["final"][subset]["accuracy"] == pytest.approx(sum(found) / 3, abs=1e-12)
    # A client never sees the labels taken away from it.
    assert all(summary["clients"][str(k)][SUBSETS[k + 1]]["accuracy"] == 0 for k in range(3))


def test_the_partition_is_described(lesson: Path) -> None:
    partition = json.loads((lesson / "partition.json").read_text())
    counts = np.array(partition["class_counts"])
    assert partition["num_clients"] == 3
    assert partition["sha256"] == _summary(lesson)["partition_sha256"]
    assert counts.sum(axis=1).tolist() == partition["num_examples"]
    for client, excluded in enumerate([[1, 3, 7], [2, 5, 8], [4, 6, 9]]):
        assert np.flatnonzero(counts[client] == 0).tolist() == excluded


def test_timings_tell_the_phases_of_every_round(lesson: Path) -> None:
    with (lesson / "timings.csv").open(newline="") as file:
        rows = [(int(row["round"]), row["phase"]) for row in csv.DictReader(file)]
    each = ("train", "aggregate", "evaluate")
    start = [(0, "startup"), (0, "evaluate")]
    assert rows == [*start, *((k, phase) for k in (1, 2) for phase in each)]


def test_a_run_can_be_repeated_bit_for_bit(lesson: Path, tmp_path: Path) -> None:
    saved = yaml.safe_load((lesson / "config.yaml").read_text())
    assert saved["rounds"] == 2
    overrides = ["backend=inline", "training.local_epochs=1", "rounds=2"]
    again = run(compose_config(overrides), tmp_path)
    for name in ("metrics.csv", "model.safetensors", "confusion.csv", "config.yaml"):
        assert (tmp_path / name).read_bytes() == (lesson / name).read_bytes()
    assert again["model_sha256"] == _summary(lesson)["model_sha256"]


def test_another_seed_is_another_model_on_the_same_partition(lesson: Path, run_of: RunOf) -> None:
    other = _summary(run_of("backend=inline", "seed=1"))
    assert other["model_sha256"] != _summary(lesson)["model_sha256"]
    assert other["partition_sha256"] == _summary(lesson)["partition_sha256"]  # it has its own seed


def _tiny_run(
    path: Path, monkeypatch: pytest.MonkeyPatch, bad_client: int | None = None, **changes: Any
) -> dict[str, Any]:
    data = tiny_data() if bad_client is None else with_fault(tiny_data(), bad_client)
    monkeypatch.setattr(experiment, "federate", lambda _: data)
    found: dict[str, Any] = run(config(**changes), path)
    return found


def test_a_client_that_raises_is_left_out_of_every_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = _tiny_run(tmp_path, monkeypatch, bad_client=1, rounds=2)
    assert summary["status"] == "completed"
    assert (tmp_path / "failures.csv").read_text() == (
        "round,phase,client,reason\n"
        "1,train,1,ValueError: disk of client 1 is gone\n"
        "2,train,1,ValueError: disk of client 1 is gone\n"
    )


def test_a_local_model_that_never_trained_is_not_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = LocalOnly()
    summary = _tiny_run(tmp_path, monkeypatch, bad_client=1, rounds=1, strategy=alone)
    names = load_file(tmp_path / "model.safetensors")
    assert {name.split("/")[0] for name in names} == {"0", "2"}
    initial = metrics(tmp_path).query("round == 0 and client == 1 and metric == 'accuracy'")
    assert summary["clients"]["1"]["all"]["accuracy"] == initial["value"].item()


def test_no_client_left_is_a_failed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pattern = (
        "round 1: all 3 clients failed to train; client 0: ValueError: disk of client 0 is gone"
    )
    with pytest.raises(FedexpError, match=f"^{pattern}$"):
        _tiny_run(tmp_path, monkeypatch, bad_client=-1)
    summary = _summary(tmp_path)
    assert summary["status"] == "failed"
    assert summary["error"] == pattern
    assert metrics(tmp_path)["round"].tolist() == [0, 0]
    assert len((tmp_path / "failures.csv").read_text().splitlines()) == 4
    assert not list(tmp_path.glob(".*"))


def test_a_run_that_breaks_off_before_it_deals_says_what_it_was() -> None:
    ending = Attempt(config(seed=3), Listener(), verbose=False).broken_off("failed", "why")
    summary = dict(ending.summary)
    keys = ["status", "strategy", "kind", "seed", "seconds", "rounds", "error"]
    assert list(summary) == keys
    assert 0 <= summary.pop("seconds") < 60
    assert summary == {
        **{"status": "failed", "strategy": "fedavg", "kind": "federated", "seed": 3},
        **{"rounds": 0, "error": "why"},
    }
    assert (ending.clients, ending.weights, ending.confusion) == ([], None, None)


def test_an_interrupted_run_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fedexp.backends.inline.run", interrupt)
    with pytest.raises(KeyboardInterrupt):
        _tiny_run(tmp_path, monkeypatch)
    assert _summary(tmp_path)["status"] == "interrupted"
    assert "error" not in _summary(tmp_path)


def test_a_run_that_is_cut_off_says_how_far_it_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: Terminal, server_round: int, *__: Any) -> None:
        if server_round == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Terminal, "progress", interrupt)
    with pytest.raises(KeyboardInterrupt):
        _tiny_run(tmp_path, monkeypatch, rounds=9)
    assert _summary(tmp_path)["status"] == "interrupted"
    assert _summary(tmp_path)["rounds"] == 2
    assert sorted(set(metrics(tmp_path)["round"])) == [0, 1, 2]


def test_a_signal_that_was_swallowed_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signals, "_received", [])

    def start(*_: Any, **__: Any) -> None:
        signals._received.append(15)

    monkeypatch.setattr(Terminal, "say", start)
    with pytest.raises(KeyboardInterrupt):
        _tiny_run(tmp_path, monkeypatch)
    assert _summary(tmp_path)["status"] == "interrupted"
    assert _summary(tmp_path)["rounds"] == 0


@pytest.mark.parametrize(
    ("last_read", "status"),
    [
        ("fedexp: strategy=fedavg", "interrupted"),
        ("  round 1/", "interrupted"),
        ("  {folder}", "completed"),
    ],
)
def test_a_reader_that_is_gone_takes_nothing_from_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last_read: str, status: str
) -> None:
    beginning = last_read.format(folder=os.path.relpath(tmp_path))

    def gone(_: Terminal, *lines: str, **_how: Any) -> None:
        if any(line.startswith(beginning) for line in lines):
            raise SystemExit(1)  # as rich does, once

    monkeypatch.setattr(Terminal, "say", gone)
    with pytest.raises(SystemExit):
        _tiny_run(tmp_path, monkeypatch)
    assert _summary(tmp_path)["status"] == status
    assert ("final" in _summary(tmp_path)) == (status == "completed")


def test_stopping_early_is_in_the_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # No round can improve accuracy by more than 1.
    stop = StopConfig(metric="accuracy", min_delta=2.0, patience=2)
    summary = _tiny_run(tmp_path, monkeypatch, rounds=9, stop=stop)
    assert (summary["status"], summary["rounds"], summary["stopped_early"]) == (
        "completed",
        2,
        True,
    )
    assert metrics(tmp_path)["round"].max() == 2


def test_one_client_alone_completes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tiny_data(sizes=(6,), test_sizes=(4,))
    monkeypatch.setattr(experiment, "federate", lambda _: data)
    clients = ClientsConfig(num=1, fraction_evaluate=1.0)
    federated = run(config(rounds=2, clients=clients), tmp_path / "a")
    alone = run(config(rounds=2, clients=clients, strategy=LocalOnly()), tmp_path / "b")
    # Averaging one client changes nothing, so both strategies end with the same model.
    assert federated["final"] == alone["final"]
    left, right = (load_file(tmp_path / name / "model.safetensors") for name in ("a", "b"))
    assert {f"0/{name}": array.tobytes() for name, array in left.items()} == {
        name: array.tobytes() for name, array in right.items()
    }
