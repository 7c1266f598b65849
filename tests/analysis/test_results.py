from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.folders import HEADER, alone, federated, write_run

from fedexp.analysis import results
from fedexp.analysis.comparison import compare
from fedexp.analysis.results import load
from fedexp.core import owner


def _finals(path: Path, query: str) -> list[float]:
    numbers: list[float] = load(path).finals.query(query)["value"].tolist()
    return numbers


def test_a_run_is_a_row(tmp_path: Path) -> None:
    settings = {"training": {"learning_rate": 0.1}, "partition": {"exclude": [[1], [2]]}}
    write_run(tmp_path / "0-a", "fedavg", federated(0.75), seed=3, settings=settings)
    found = load(tmp_path)
    row = found.runs.loc[0]
    expected = {
        **{"path": str(tmp_path / "0-a"), "name": "0-a", "status": "completed", "error": None},
        **{"strategy": "fedavg", "kind": "federated", "seed": 3, "rounds": 2, "seconds": 1.5},
        **{"model_sha256": "0-a", "partition_sha256": "p", "task": None},
        **{"selected_on": None, "selected_by": None},
    }
    assert row.to_dict() == expected
    assert found.settings.loc[0].to_dict() == {
        "seed": 3,
        "strategy.name": "fedavg",
        "training.learning_rate": 0.1,
        "partition.exclude": [[1], [2]],
    }
    assert found.path(0) == tmp_path / "0-a"


def test_curves_and_finals_of_a_global_model(tmp_path: Path) -> None:
    write_run(tmp_path / "0", "fedavg", federated(0.75, own=(0.5, 1.0)))
    found = load(tmp_path)
    accuracy = "split == 'test' and subset == 'all' and metric == 'accuracy'"
    assert found.curves.query(accuracy)["value"].tolist() == [0.125, 0.99, 0.75]
    assert found.curves.query("metric == 'bytes_down'")["value"].tolist() == [100.0]
    # A client's own figures are no curve; of the clients' mean there is one.
    assert found.curves.query("split == 'client_test'")["value"].tolist() == [0.875]
    assert _finals(tmp_path, accuracy) == [0.75]
    shares = found.finals.query("split == 'client_test'")
    assert shares["client"].tolist() == [pd.NA, 0, 1]
    assert shares["value"].tolist() == [0.875, 0.5, 1.0]
    assert found.finals.query("split == 'train'").empty


def test_the_curve_of_local_models_is_their_mean(tmp_path: Path) -> None:
    # Client 1 is not sampled in round 1 and counts there with what it had.
    rows = [
        f"{server_round},local,test,all,{client},accuracy,{value}"
        for server_round, client, value in (
            *((0, 0, 0.25), (0, 1, 0.25)),
            *((1, 0, 0.75),),
            *((2, 0, 0.5), (2, 1, 1.0)),
        )
    ]
    write_run(tmp_path / "0", "local_only", rows)
    assert load(tmp_path).curves["value"].tolist() == [0.25, 0.5, 0.75]
    assert _finals(tmp_path, "client == 1") == [1.0]


def test_jobs_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for job in (10, 2, 1):
        write_run(tmp_path / f"{job}-fedavg-s0", "fedavg", federated(0.5))
    assert load(tmp_path).runs["name"].tolist() == ["1-fedavg-s0", "2-fedavg-s0", "10-fedavg-s0"]


@pytest.mark.parametrize("name", ["metrics.csv", "confusion.csv", "partition.json"])
def test_a_completed_run_that_lost_a_file_is_named_and_the_rest_is_compared(
    name: str, tmp_path: Path
) -> None:
    for job, strategy, rows in ((0, "fedavg", federated(0.5)), (1, "local_only", alone(0.25))):
        write_run(tmp_path / str(job), strategy, rows, class_counts=[[1, 1]])
    write_run(tmp_path / "2", "fedavg", [], seed=1, status="failed", error="why")
    (tmp_path / "0" / name).unlink()
    (tmp_path / "2" / name).unlink()  # a run that failed need not have it
    found = load(tmp_path)
    assert found.runs["status"].tolist() == ["unreadable", "completed", "failed"]
    lost = f"unreadable: {tmp_path / '0'}: {name} of a completed run: not there any more"
    assert found.problems() == [lost, f"failed: {tmp_path / '2'}: why"]
    assert compare(found).table["row"].tolist() == ["local_only"]


def test_several_folders_and_a_selection(tmp_path: Path) -> None:
    for name in "ab":
        write_run(tmp_path / name / "0", "fedavg", federated(0.5))
    found = load(tmp_path / "b", tmp_path / "a", tmp_path / "a" / "0")
    assert [Path(path).parent.name for path in found.runs["path"]] == ["a", "b"]
    second = found.select([1])
    assert second.runs.index.tolist() == [1]
    assert set(second.curves["run"]) == set(second.finals["run"]) == {1}


def test_a_run_goes_on_while_its_process_is_there(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "0", "fedavg", federated(0.5), status="running")
    hold = owner.take(folder)
    assert load(tmp_path).runs["status"].tolist() == ["running"]
    hold.give_back()
    assert load(tmp_path).runs["status"].tolist() == ["killed"]


@pytest.mark.parametrize("change", ["0.75", "0.5", None])
def test_numbers_that_were_changed_after_the_end_are_noticed(
    tmp_path: Path, change: str | None
) -> None:
    file = write_run(tmp_path / "0", "fedavg", federated(0.75)) / "metrics.csv"
    content = file.read_bytes()
    position = {"rows": 8, "bytes": len(content), "sha256": sha256(content).hexdigest()}
    write_run(tmp_path / "1", "fedavg", federated(0.75), metrics_csv=position)
    file = tmp_path / "1" / "metrics.csv"
    content = content[:-1] if change is None else content.replace(b"0.75", change.encode())
    file.write_bytes(content)
    found = load(tmp_path)
    if change == "0.75":
        assert found.completed == [0, 1]
    else:
        assert found.completed == [0]
        assert "metrics.csv was changed" in str(found.runs.at[1, "error"])
        assert set(found.curves["run"]) == {0}


def test_incomplete_runs_are_there_and_named(tmp_path: Path) -> None:
    write_run(tmp_path / "0", "fedavg", federated(0.75))
    write_run(tmp_path / "1", "fedavg", [], status="failed", error="OSError: disk full")
    write_run(tmp_path / "2", "fedavg", [], status="interrupted")
    write_run(tmp_path / "3", "fedavg", federated(0.5), status="running")
    write_run(tmp_path / "4", "fedavg", [])
    (tmp_path / "4" / "summary.json").write_text("{")
    write_run(tmp_path / "5", "fedavg", ["no,metrics"])
    (tmp_path / "5" / "metrics.csv").write_text("a,b\n1,2\n")
    write_run(tmp_path / "6", "fedavg", [])
    (tmp_path / "6" / "config.yaml").write_text("a: [")
    found = load(tmp_path)
    assert found.completed == [0]
    states = ["completed", "failed", "interrupted", "killed", *["unreadable"] * 3]
    assert found.runs["status"].tolist() == states
    problems = found.problems()
    assert len(problems) == 6
    assert problems[:3] == [
        f"failed: {tmp_path / '1'}: OSError: disk full",
        f"interrupted: {tmp_path / '2'}: it can go on: fedexp resume {tmp_path / '2'}",
        f"killed: {tmp_path / '3'}: it can go on: fedexp resume {tmp_path / '3'}",
    ]
    assert problems[3].startswith(f"unreadable: {tmp_path / '4'}: summary.json: ")
    assert problems[4] == (
        f"unreadable: {tmp_path / '5'}: metrics.csv: the columns must be {HEADER}"
    )
    assert "config.yaml" in problems[5]
    # What a run wrote before it was cut off can be read.
    assert set(found.curves["run"]) == {0, 3}


def test_half_a_line_at_the_end_does_not_count(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "0", "fedavg", federated(0.75), status="running")
    with (folder / "metrics.csv").open("a") as file:
        file.write("3,global,test,all,,accuracy,0.9")  # of 0.95, say
    assert load(tmp_path).curves["round"].max() == 2


def test_no_run_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no run here"):
        load(tmp_path)


def test_a_run_can_be_read_on_its_own(tmp_path: Path) -> None:
    matrices: dict[int | None, list[list[int]]] = {0: [[3, 1], [0, 4]], 1: [[0, 4], [0, 4]]}
    folder = write_run(
        tmp_path / "0", "local_only", alone(0.5, 0.5), confusion=matrices, class_counts=[[1, 2]]
    )
    (folder / "timings.csv").write_text(
        "round,phase,seconds\n0,startup,2.0\n0,evaluate,0.5\n1,train,1.0\n1,evaluate,0.25\n"
    )
    (folder / "environment.json").write_text(json.dumps({"overrides": ["seed=0"]}))
    found = results.confusion(folder)
    assert {client: matrix.tolist() for client, matrix in found.items()} == matrices
    assert results.seconds(folder).to_dict() == {0: 2.5, 1: 3.75}
    assert results.partition(folder)["class_counts"] == [[1, 2]]
    assert results.environment(folder)["overrides"] == ["seed=0"]
    assert len(results.metrics(folder)) == 8
    assert results.confusion(write_run(tmp_path / "1", "fedavg", []))[None].tolist() == [
        [1, 0],
        [0, 1],
    ]


@pytest.mark.slow
def test_real_runs_can_be_read(run_of: Callable[..., Path]) -> None:
    found = load(run_of("backend=inline"), run_of("backend=inline", "strategy=local_only"))
    assert found.runs["strategy"].tolist() == ["fedavg", "local_only"]
    assert found.completed == [0, 1]
    assert found.settings["training.local_epochs"].tolist() == [1, 1]
    # Rounds 0 to 2 of accuracy and loss on four subsets, a training loss and two of traffic a round.
    assert len(found.curves.query("run == 0")) == 3 * 4 * 2 + 2 * 3
    assert len(found.curves.query("run == 1")) == 3 * 4 * 2 + 2
    # Four subsets and a share of the test images a client, of two metrics each.
    assert len(found.finals.query("run == 0")) == (4 + 3) * 2
    assert len(found.finals.query("run == 1")) == 3 * (4 + 1) * 2


def test_one_bad_table_among_good_ones_is_named(tmp_path: Path) -> None:
    write_run(tmp_path / "0", "fedavg", federated(0.75))
    write_run(tmp_path / "1", "fedavg", ["0,global,test,all,,accuracy,much"])
    write_run(tmp_path / "2", "fedavg", federated(0.5))
    found = load(tmp_path)
    assert found.completed == [0, 2]
    assert "much" in found.problems()[0]
    finals = found.finals.query("metric == 'accuracy' and split == 'test' and subset == 'all'")
    assert finals[["run", "value"]].to_numpy().tolist() == [[0, 0.75], [2, 0.5]]


@pytest.mark.slow
def test_a_thousand_runs_of_a_hundred_rounds_take_seconds(tmp_path: Path) -> None:
    subsets, metrics = ("all", "1-3-7", "2-5-8", "4-6-9"), ("accuracy", "loss")
    models: dict[str, list[Any]] = {"global": [""], "local": [0, 1, 2]}
    rows = {
        model: [
            f"{server_round},{model},test,{subset},{client},{metric},0.123456789"
            for server_round in range(101)
            for client in clients
            for subset in subsets
            for metric in metrics
        ]
        for model, clients in models.items()
    }
    for job in range(1000):
        strategy = ["fedavg", "fedadam", "fedmedian", "local_only"][job % 4]
        model = "local" if strategy == "local_only" else "global"
        counts = [[1, 1]] * 3
        name, seed = tmp_path / f"{job}-x", job // 4
        write_run(name, strategy, rows[model], seed=seed, class_counts=counts)
    start = time.perf_counter()
    compare(load(tmp_path))
    assert time.perf_counter() - start < 10  # 5 s on two shared cores
    tracemalloc.start()  # takes longer than what it traces
    found = load(tmp_path)
    compared = compare(found)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 300e6  # bytes
    assert len(found.curves) == 1000 * 101 * 8
    assert found.curves.memory_usage(deep=True).sum() < 30e6
    assert len(compared.gains) == 750 * 3


def _started(folder: Path, hour: int) -> None:
    (folder / "environment.json").write_text(f'{{"started": "2026-11-25T{hour:02}:00:00+00:00"}}')


def test_a_run_that_completed_when_it_was_run_again_takes_the_failed_ones_place(
    tmp_path: Path,
) -> None:
    def ran(job: str, hour: int, status: str, **settings: Any) -> Path:
        rows = federated(0.5) if status == "completed" else []
        told = {"rounds": 2, "backend": {"name": job}, **settings}  # where it ran is no difference
        folder = write_run(
            tmp_path / job, "fedavg", rows, settings=told, status=status, error="why"
        )
        _started(folder, hour)
        return folder

    ran("0", 1, "failed")
    ran("1", 3, "completed")
    ran("2", 2, "killed")
    other = ran("3", 1, "failed", rounds=3)
    named = ran("4", 1, "failed", name="another")
    later = ran("5", 4, "failed")
    found = load(tmp_path)
    assert found.superseded == {0: 1, 2: 1}
    assert found.problems() == [f"failed: {path}: why" for path in (other, named, later)]
    told = compare(found).notes
    assert sum("2 runs" in note for note in told) == 1
    assert not any(str(tmp_path / "0") in note for note in told)
