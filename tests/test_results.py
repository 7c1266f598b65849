from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from helpers import metrics

from fedexp.results import closing_table, comparison, load

HEADER = "round,model,split,subset,client,metric,value"


def _write(
    folder: Path,
    strategy: str,
    rows: Iterable[str],
    *,
    seed: int = 0,
    partition: str = "p",
    **summary: Any,
) -> None:
    folder.mkdir(parents=True)
    head = {
        "status": "completed",
        "strategy": strategy,
        "seed": seed,
        "partition_sha256": partition,
    }
    (folder / "summary.json").write_text(json.dumps({**head, **summary}))
    (folder / "metrics.csv").write_text("\n".join([HEADER, *rows]) + "\n")


def _global(final: float, on_subset: float = 0.5) -> list[str]:
    return [
        "0,global,test,all,,accuracy,0.125",
        "1,global,test,all,,accuracy,0.99",  # the best round must not be taken for the last
        f"2,global,test,all,,accuracy,{final}",
        f"2,global,test,1-3-7,,accuracy,{on_subset}",
        "2,global,test,all,,loss,7.0",
        "2,global,client_test,all,,accuracy,0.875",
        "2,local,train,all,,loss,3.0",
    ]


def _local(*finals: float) -> list[str]:
    return [
        f"{server_round},local,test,{subset},{client},accuracy,{value * share}"
        for server_round, share in ((0, 0.1), (1, 1.0))
        for client, value in enumerate(finals)
        for subset, value in (("all", value), ("1-3-7", value / 2))
    ]


def _settings(folder: Path, seed: int, rate: float) -> None:
    text = f"seed: {seed}\ntraining:\n  learning_rate: {rate}\n"
    (folder / "config.yaml").write_text(text)


def _table(path: Path) -> dict[str, dict[str, Any]]:
    frame = comparison(load(path)).set_index("model")
    return {name: row.dropna().to_dict() for name, row in frame.iterrows()}  # type: ignore[misc]


def test_final_accuracy_and_gain(tmp_path: Path) -> None:
    _write(tmp_path / "0-fedavg", "fedavg", _global(0.75))
    _write(tmp_path / "1-local", "local_only", _local(0.25, 0.5))
    found = _table(tmp_path)
    assert found == {
        # Gains: 0.75 - (0.25 + 0.5) / 2 and 0.75 - 0.5.
        "fedavg": {
            **{"runs": 1, "all": 0.75, "1-3-7": 0.5},
            **{"gain_over_mean": 0.375, "gain_over_best": 0.25},
        },
        "local_only: mean client": {"runs": 1, "all": 0.375, "1-3-7": 0.1875},
        "local_only: best client": {"runs": 1, "all": 0.5, "1-3-7": 0.25},
        "local_only: client 0": {"runs": 1, "all": 0.25, "1-3-7": 0.125},
        "local_only: client 1": {"runs": 1, "all": 0.5, "1-3-7": 0.25},
    }
    assert next(iter(found)) == "fedavg"


def test_gain_pairs_runs_by_seed_and_partition(tmp_path: Path) -> None:
    _write(tmp_path / "0", "fedavg", _global(0.75), seed=0, partition="p")
    _write(tmp_path / "1", "fedavg", _global(0.5), seed=1, partition="p")
    _write(tmp_path / "2", "local_only", _local(0.25, 0.5), seed=0, partition="p")
    _write(tmp_path / "3", "local_only", _local(0.25, 0.25), seed=1, partition="other")
    found = _table(tmp_path)["fedavg"]
    # Seed 1 has no isolated clients on its partition, so the gain is seed 0's alone.
    assert found["all"] == 0.625
    assert found["gain_over_mean"] == 0.375  # 0.75 - 0.375
    assert found["gain_over_best"] == 0.25  # 0.75 - 0.5


def test_gain_is_the_mean_of_the_seeds_gains(tmp_path: Path) -> None:
    for seed, (federated, alone) in enumerate([(0.75, (0.25, 0.5)), (0.625, (0.5, 0.125))]):
        _write(tmp_path / f"{2 * seed}", "fedavg", _global(federated), seed=seed)
        _write(tmp_path / f"{2 * seed + 1}", "local_only", _local(*alone), seed=seed)
    found = _table(tmp_path)
    assert found["fedavg"]["runs"] == 2
    assert found["fedavg"]["gain_over_mean"] == 0.34375  # (0.375 + 0.3125) / 2
    assert found["fedavg"]["gain_over_best"] == 0.1875  # (0.25 + 0.125) / 2
    assert found["local_only: best client"]["all"] == 0.5  # (0.5 + 0.5) / 2, another client each
    assert found["local_only: client 0"]["all"] == 0.375


def test_without_isolated_clients_there_is_no_gain(tmp_path: Path) -> None:
    _write(tmp_path / "0", "fedavg", _global(0.75))
    _write(tmp_path / "1", "fedmedian", _global(0.5))
    frame = comparison(load(tmp_path))
    assert list(frame) == ["model", "runs", "all", "1-3-7"]
    assert frame["model"].tolist() == ["fedavg", "fedmedian"]


def test_only_runs_that_differ_in_nothing_but_the_seed_are_averaged(tmp_path: Path) -> None:
    jobs = [(0, 0.1, 0.25), (1, 0.1, 0.75), (0, 0.5, 0.125), (1, 0.5, 0.375)]
    for job, (seed, rate, final) in enumerate(jobs):
        _write(tmp_path / str(job), "fedavg", _global(final), seed=seed)
        _settings(tmp_path / str(job), seed, rate)
    found = _table(tmp_path)
    assert {name: (row["runs"], row["all"]) for name, row in found.items()} == {
        "fedavg training.learning_rate=0.1": (2, 0.5),  # (0.25 + 0.75) / 2
        "fedavg training.learning_rate=0.5": (2, 0.25),  # (0.125 + 0.375) / 2
    }


def test_gain_is_over_isolated_clients_of_the_same_settings(tmp_path: Path) -> None:
    for job, (rate, federated, alone) in enumerate([(0.1, 0.75, 0.5), (0.5, 0.625, 0.125)]):
        _write(tmp_path / f"{2 * job}", "fedavg", _global(federated))
        _write(tmp_path / f"{2 * job + 1}", "local_only", _local(alone, alone))
        _settings(tmp_path / f"{2 * job}", 0, rate)
        _settings(tmp_path / f"{2 * job + 1}", 0, rate)
    found = _table(tmp_path)
    assert found["fedavg training.learning_rate=0.1"]["gain_over_mean"] == 0.25  # 0.75 - 0.5
    assert found["fedavg training.learning_rate=0.5"]["gain_over_mean"] == 0.5  # 0.625 - 0.125
    assert found["local_only training.learning_rate=0.5: best client"]["all"] == 0.125


def test_many_clients_are_not_listed_one_by_one(tmp_path: Path) -> None:
    _write(tmp_path / "0", "local_only", _local(*[0.5] * 11))
    assert list(_table(tmp_path)) == ["local_only: mean client", "local_only: best client"]


def test_jobs_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for job in (10, 2, 1):
        _write(tmp_path / f"{job}-fedavg-s0", "fedavg", _global(0.5))
    names = [run.path.name for run in load(tmp_path)]
    assert names == ["1-fedavg-s0", "2-fedavg-s0", "10-fedavg-s0"]


def test_incomplete_runs_are_named_and_not_counted(tmp_path: Path) -> None:
    _write(tmp_path / "0-a", "fedavg", _global(0.75))
    _write(tmp_path / "1-b", "fedavg", _global(0.25), status="failed", error="OSError: disk full")
    _write(tmp_path / "2-c", "fedavg", [], status="interrupted")
    (tmp_path / "3-d").mkdir()
    (tmp_path / "3-d" / "summary.json").write_text('{"status": "running"}')
    text, all_completed = closing_table(tmp_path)
    assert not all_completed
    assert _table(tmp_path)["fedavg"] == {"runs": 1, "all": 0.75, "1-3-7": 0.5}
    assert text.splitlines()[-3:] == [
        f"failed: {tmp_path / '1-b'}: OSError: disk full",
        f"interrupted: {tmp_path / '2-c'}: see run.log",
        f"running: {tmp_path / '3-d'}: see run.log",
    ]


def test_only_failed_runs_make_no_table(tmp_path: Path) -> None:
    _write(tmp_path / "0", "fedavg", [], status="failed", error="why")
    expected = (f"failed: {tmp_path / '0'}: why", False)
    assert closing_table(tmp_path) == expected


def test_no_run_is_said_so(tmp_path: Path) -> None:
    text, all_completed = closing_table(tmp_path)
    assert (not all_completed, str(tmp_path) in text, "no run here" in text) == (True, True, True)
    with pytest.raises(FileNotFoundError, match="no run here"):
        load(tmp_path)


def test_gains_are_printed_with_their_sign(tmp_path: Path) -> None:
    _write(tmp_path / "0", "fedavg", _global(0.25))
    _write(tmp_path / "1", "local_only", _local(0.5, 0.25))
    text, all_completed = closing_table(tmp_path)
    assert all_completed
    (row,) = [line.split() for line in text.splitlines() if line.split()[:1] == ["fedavg"]]
    assert row == ["fedavg", "1", "0.250", "0.500", "-0.125", "-0.250"]


def test_the_table_of_real_runs_is_that_of_their_metrics(
    run_of: Callable[..., Path], tmp_path: Path
) -> None:
    federated = run_of("backend=inline")
    isolated = run_of("backend=inline", "strategy=local_only")
    frame = comparison([*load(federated), *load(isolated)]).set_index("model")

    def last(folder: Path, subset: str) -> list[float]:
        query = "round == 2 and split == 'test' and metric == 'accuracy' and subset == @subset"
        numbers: list[float] = metrics(folder).query(query)["value"].tolist()
        return numbers

    for subset in ("all", "1-3-7", "2-5-8", "4-6-9"):
        assert [frame.loc["fedavg", subset]] == last(federated, subset)
        for client, value in enumerate(last(isolated, subset)):
            assert frame.loc[f"local_only: client {client}", subset] == value
    (mine,), alone = last(federated, "all"), last(isolated, "all")
    row = frame.loc["fedavg"]
    assert row["gain_over_mean"] == pytest.approx(mine - sum(alone) / 3, abs=1e-12)
    assert row["gain_over_best"] == pytest.approx(mine - max(alone), abs=1e-12)
