"""Comparisons against numbers worked out by hand; accuracies are chosen to be exact in binary."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.folders import alone, federated, write_run
from support.helpers import metrics

from fedexp.analysis import results
from fedexp.analysis.comparison import Comparison, compare
from fedexp.analysis.results import load
from fedexp.analysis.tables import render


def _compared(path: Path, **options: Any) -> Comparison:
    return compare(load(path), **options)


def _row(found: Comparison, name: str) -> dict[str, Any]:
    (row,) = found.table[found.table["row"] == name].to_dict("records")
    return {str(key): value for key, value in row.items() if not pd.isna(value)}


def test_one_seed_of_each(tmp_path: Path) -> None:
    # Client 0 holds no label 0, client 1 no label 1.
    counts = [[0, 5], [5, 0]]
    write_run(
        tmp_path / "0",
        "fedavg",
        federated(0.75, own=(0.5, 1.0)),
        class_counts=counts,
        confusion={None: [[6, 2], [1, 7]]},
    )
    write_run(
        tmp_path / "1",
        "local_only",
        alone(0.25, 0.5, own=(0.75, 0.75)),
        class_counts=counts,
        confusion={0: [[0, 8], [0, 8]], 1: [[8, 0], [6, 2]]},
    )
    found = _compared(tmp_path)
    assert _row(found, "fedavg") == {
        **{"row": "fedavg", "strategy": "fedavg", "kind": "federated", "runs": 1, "diverged": 0},
        **{
            "baseline": "fedavg",
            "rounds_censored": 1.0,
            "accuracy": 0.75,
            "loss": 0.5,
            "accuracy/1-3-7": 0.5,
        },
        # 95 % of 0.75 is 0.7125: to 0.71 it takes one round (0.99).
        **{"rounds_to_target": 1.0, "reached": 1, "seconds": 1.5},
        **{"client_mean": 0.75, "client_std": 0.25, "client_worst10": 0.5},
        # 0.75 - 0.25 and 0.75 - 0.5; own examples -0.25 and 0.25.
        **{"gain": 0.375, "gain_best": 0.25, "gain_own": 0.0, "worse_off": 1.0, "clients": 2.0},
        # Unseen: client 0 names 6 of 8 zeros against none; client 1 7 of 8 ones against 2 of 8.
        "gain_unseen": (0.75 + 0.625) / 2,
    }
    assert _row(found, "local_only") == {
        **{"row": "local_only", "strategy": "local_only", "kind": "isolated", "runs": 1},
        **{"diverged": 0, "accuracy": 0.375, "accuracy/1-3-7": 0.1875},
        **{"baseline": "fedavg", "rounds_censored": math.inf, "reached": 0, "seconds": 1.5},
        **{"client_mean": 0.75, "client_std": 0.0, "client_worst10": 0.75},
    }
    assert found.gains.to_dict("records") == [
        {
            **{"row": "fedavg", "strategy": "fedavg", "run": 0, "seed": 0, "client": 0},
            **{"gain": 0.5, "gain_own": -0.25, "gain_unseen": 0.75},
            **{"alone": 0.25, "alone_own": 0.75, "alone_unseen": 0.0},
        },
        {
            **{"row": "fedavg", "strategy": "fedavg", "run": 0, "seed": 0, "client": 1},
            **{"gain": 0.25, "gain_own": 0.25, "gain_unseen": 0.625},
            **{"alone": 0.5, "alone_own": 0.75, "alone_unseen": 0.25},
        },
    ]
    alone_ = {"row": "local_only", "strategy": "local_only"}
    assert found.isolated.to_dict("records") == [
        {**alone_, "client": 0, "accuracy": 0.25, "accuracy/1-3-7": 0.125},
        {**alone_, "client": 1, "accuracy": 0.5, "accuracy/1-3-7": 0.25},
    ]
    assert (found.target, found.baseline, found.notes) == (0.71, "fedavg", [])


def test_means_and_intervals_over_seeds(tmp_path: Path) -> None:
    for seed, (together, single) in enumerate([(0.75, 0.25), (0.5, 0.25), (0.625, 0.5)]):
        write_run(tmp_path / f"{seed}", "fedavg", federated(together), seed=seed)
        write_run(tmp_path / f"{seed}l", "local_only", alone(single, single), seed=seed)
    row = _row(_compared(tmp_path), "fedavg")
    t = 4.302653  # Student's, two degrees of freedom, 97.5 %
    assert row["accuracy"] == 0.625
    assert row["accuracy/ci"] == pytest.approx(t * 0.125 / math.sqrt(3), abs=1e-6)
    # Gains 0.5, 0.25 and 0.125: their mean, not the difference of means, has the interval.
    gains = pd.Series([0.5, 0.25, 0.125])
    assert row["gain"] == pytest.approx(gains.mean())
    assert row["gain/ci"] == pytest.approx(t * gains.std() / math.sqrt(3), abs=1e-6)


def test_runs_are_paired_by_seed_partition_and_settings(tmp_path: Path) -> None:
    def run(job: int, strategy: str, rows: list[str], rate: float, **more: Any) -> None:
        settings = {"training": {"learning_rate": rate}}
        write_run(tmp_path / str(job), strategy, rows, settings=settings, **more)

    run(0, "fedavg", federated(0.75), 0.1)
    run(1, "fedavg", federated(0.625), 0.5)
    run(2, "local_only", alone(0.5, 0.5), 0.1)
    run(3, "local_only", alone(0.125, 0.125), 0.5)
    run(4, "fedavg", federated(0.5), 0.1, seed=1)
    run(5, "local_only", alone(0.25, 0.25), 0.1, seed=1, partition="other")
    found = _compared(tmp_path)
    assert _row(found, "fedavg training.learning_rate=0.1")["gain"] == 0.25
    assert _row(found, "fedavg training.learning_rate=0.1")["runs"] == 2
    assert _row(found, "fedavg training.learning_rate=0.5")["gain"] == 0.5
    assert found.notes == [
        "no isolated run of the same seed, partition and settings for 1 run (fedavg "
        "training.learning_rate=0.1), which are not compared with one",
        "seed 1: the runs hold 2 different partitions; only runs on the same one are compared with "
        "each other",
    ]


def test_a_strategys_own_options_do_not_part_it_from_the_references(tmp_path: Path) -> None:
    for job, mu in enumerate((0.1, 1.0)):
        settings = {"strategy": {"name": "fedprox", "proximal_mu": mu}}
        write_run(tmp_path / str(job), "fedprox", federated(0.5 + mu / 8), settings=settings)
    write_run(tmp_path / "8", "local_only", alone(0.25, 0.25))
    write_run(tmp_path / "9", "centralized", federated(0.875))
    found = _compared(tmp_path)
    row = _row(found, "fedprox strategy.proximal_mu=1")
    assert (row["gain"], row["to_centralized"]) == (0.375, -0.25)
    assert _row(found, "centralized")["gain"] == 0.625
    assert found.notes == []


def test_the_same_run_twice_is_no_second_seed(tmp_path: Path) -> None:
    for job, final in enumerate((0.5, 0.75)):
        write_run(tmp_path / str(job), "fedavg", federated(final))
    found = _compared(tmp_path)
    row = _row(found, "fedavg")
    assert (row["runs"], row["accuracy"]) == (1, 0.75)  # the later one
    assert found.notes == ["1 run left out: run again later with the same seed and settings"]


def test_the_later_run_is_told_by_time_not_by_name(tmp_path: Path) -> None:
    # 23:30 two hours east of Greenwich is before 22:00 there.
    for job, (final, time) in enumerate(((0.5, "22:00:00+0000"), (0.75, "23:30:00+0200"))):
        folder = write_run(tmp_path / str(job), "fedavg", federated(final))
        (folder / "environment.json").write_text(f'{{"started": "2026-11-25T{time}"}}')
    assert _row(_compared(tmp_path), "fedavg")["accuracy"] == 0.5


def test_rounds_to_a_target(tmp_path: Path) -> None:
    for seed, final in enumerate((0.75, 1.0)):
        rows = [f"{k},global,test,all,,accuracy,{final * k / 4}" for k in range(5)]
        write_run(tmp_path / str(seed), "fedavg", rows, seed=seed, rounds=4)
    assert _row(_compared(tmp_path, target=0.5), "fedavg")["rounds_to_target"] == 2.5  # 3 and 2
    one = _row(_compared(tmp_path, target=0.8), "fedavg")
    assert (one["rounds_to_target"], one["reached"]) == (4.0, 1)
    # The mean is 0.875; 95 % of it is 0.83125. What is not federated sets no target.
    write_run(tmp_path / "9", "centralized", federated(1.0))
    assert _compared(tmp_path).target == 0.83


def test_paired_tests_over_seeds_are_adjusted(tmp_path: Path) -> None:
    accuracies = {
        "fedavg": (0.5, 0.5, 0.5),
        "fedadam": (0.625, 0.75, 0.875),  # 1/8, 2/8, 3/8: t = 2 sqrt(3), p = 1 - sqrt(12 / 14)
        "fedmedian": (0.5, 0.5, 0.5),
        "fedyogi": (0.25, 0.5, 0.75),  # differences of mean 0
    }
    for name, finals in accuracies.items():
        for seed, final in enumerate(finals):
            write_run(tmp_path / f"{name}{seed}", name, federated(final), seed=seed)
    found = _compared(tmp_path)
    p_values = found.table.set_index("row")["p_value"]
    assert p_values["fedadam"] == pytest.approx(3 * (1 - math.sqrt(12 / 14)))
    assert p_values["fedmedian"] == p_values["fedyogi"] == 1.0
    assert math.isnan(p_values["fedavg"])
    other = _compared(tmp_path, baseline="fedadam").table.set_index("row")["p_value"]
    assert other["fedmedian"] == pytest.approx(3 * (1 - math.sqrt(12 / 14)))
    assert _compared(tmp_path, baseline="krum").baseline is None


def test_two_seeds_are_too_few_for_a_test(tmp_path: Path) -> None:
    for name in ("fedavg", "fedadam"):
        for seed in range(2):
            write_run(tmp_path / f"{name}{seed}", name, federated(0.5), seed=seed)
    assert _compared(tmp_path).table["p_value"].isna().all()


def test_runs_of_other_settings_are_no_further_seeds(tmp_path: Path) -> None:
    for alpha in (0.1, 1.0, 10.0):
        for strategy, final in (("fedavg", 0.5), ("fedadam", 0.75)):
            folder = tmp_path / f"{strategy}{alpha}"
            settings = {"partition": {"alpha": alpha}}
            write_run(folder, strategy, federated(final), settings=settings, partition=str(alpha))
    assert _compared(tmp_path, by=["strategy"]).table["p_value"].isna().all()


def test_a_baseline_that_is_no_row_is_said(tmp_path: Path) -> None:
    for strategy in ("fedadam", "fedyogi"):
        for seed in range(3):
            write_run(tmp_path / f"{strategy}{seed}", strategy, federated(0.5), seed=seed)
    found = _compared(tmp_path)
    assert found.notes == ["no row is called fedavg: --baseline ROW says what p is tested against"]
    assert _compared(tmp_path, baseline="fedyogi").notes == []


def test_isolated_rounds_concern_isolated_clients_alone(tmp_path: Path) -> None:
    for rounds, alone_at in ((1, 0.25), (3, 0.5)):
        for seed in range(2):
            settings = {"isolated_rounds": rounds}
            name = f"{rounds}-{seed}"
            fed, single = federated(0.75), alone(alone_at)
            more: dict[str, Any] = {"seed": seed, "settings": settings, "class_counts": [[1, 1]]}
            write_run(tmp_path / f"{name}f", "fedavg", fed, **more)
            write_run(tmp_path / f"{name}l", "local_only", single, **more)
    found = _compared(tmp_path)
    assert _row(found, "fedavg")["runs"] == 2  # four folders, but each seed twice
    assert _row(found, "fedavg")["gain"] == 0.25
    assert found.notes[:2] == [
        "2 runs left out: run again later with the same seed and settings",
        "several isolated runs of the same seed, partition and settings: the others are compared "
        "with local_only isolated_rounds=3",
    ]


def test_where_seeds_deal_anew_a_client_is_no_one_over_seeds(tmp_path: Path) -> None:
    for seed, finals in enumerate(((0.25, 0.75), (0.875, 0.25))):
        more: dict[str, Any] = {"seed": seed, "partition": f"p{seed}"}
        write_run(tmp_path / f"{seed}l", "local_only", alone(*finals), **more)
        write_run(tmp_path / f"{seed}f", "fedavg", federated(0.75), **more)
    found = _compared(tmp_path)
    (best,) = found.isolated.to_dict("records")
    assert pd.isna(best["client"])
    assert (best["accuracy"], best["accuracy/1-3-7"]) == (0.8125, 0.40625)  # 0.75 and 0.875
    assert found.dealt_anew == {"fedavg", "local_only"}
    text = render(found)
    assert text.count("  best client ") == 1
    assert "client 0" not in text
    assert "Gain of every client over" not in text
    assert "The gain of every client: fedexp compare FOLDER --clients" in text


@pytest.mark.parametrize(("final", "target"), [(0.0078125, 0.01), (0.5, 0.47)])
def test_the_target_is_one_that_can_be_missed(final: float, target: float, tmp_path: Path) -> None:
    write_run(tmp_path / "0", "fedavg", federated(final))
    assert _compared(tmp_path).target == target


def test_runs_without_an_accuracy_are_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "0", "fedavg", ["2,global,test,all,,loss,0.5"])
    with pytest.raises(ValueError, match="no completed run has an accuracy on the test set"):
        _compared(tmp_path)


def test_rows_by_chosen_options(tmp_path: Path) -> None:
    for job, (strategy, alpha, final) in enumerate(
        [("fedavg", 0.1, 0.25), ("fedadam", 0.1, 0.5), ("fedavg", 1.0, 0.75)]
    ):
        settings = {"partition": {"alpha": alpha}}
        write_run(tmp_path / str(job), strategy, federated(final), settings=settings)
    by_alpha = _compared(tmp_path, by=["partition.alpha"])
    assert by_alpha.table[["row", "runs", "accuracy"]].to_numpy().tolist() == [
        ["partition.alpha=0.1", 2, 0.375],
        ["partition.alpha=1", 1, 0.75],
    ]
    by_strategy = _compared(tmp_path, by=["strategy"])
    assert by_strategy.table["accuracy"].tolist() == [0.5, 0.5]
    assert by_strategy.notes == ["rows average over runs that differ in partition.alpha"]
    with pytest.raises(
        ValueError, match=r"^--by partition.beta: no run has this option; it must be"
    ):
        _compared(tmp_path, by=["partition.beta"])


def test_rows_that_have_a_value_each_average_over_nothing(tmp_path: Path) -> None:
    for job, (strategy, rate) in enumerate([("fedavg", 0.1), ("fedadam", 0.2)] * 2):
        settings = {"training": {"learning_rate": rate}}
        seed = job // 2
        write_run(tmp_path / str(job), strategy, federated(0.5), seed=seed, settings=settings)
    found = _compared(tmp_path, by=["strategy"])
    assert found.notes == ["rows also differ in training.learning_rate"]


def test_what_changes_no_result_makes_no_rows(tmp_path: Path) -> None:
    for job, backend in enumerate(("ray", "inline")):
        settings = {
            **{"backend": {"name": backend}, "tracking": {"wandb": bool(job)}},
            **{"dataset": {"root": f"data{job}"}, "name": f"n{job}", "isolated_rounds": job},
        }
        write_run(tmp_path / str(job), "fedavg", federated(0.5), seed=job, settings=settings)
    assert _compared(tmp_path).table["row"].tolist() == ["fedavg"]


def test_rounds_that_differ_are_told(tmp_path: Path) -> None:
    write_run(tmp_path / "0", "fedavg", federated(0.5), rounds=3)
    write_run(tmp_path / "1", "local_only", alone(0.25, 0.25), rounds=1)
    assert _compared(tmp_path).notes == ["rounds trained differ: fedavg 3, local_only 1"]


def test_incomplete_runs_are_named_and_not_counted(tmp_path: Path) -> None:
    write_run(tmp_path / "0", "fedavg", federated(0.75))
    write_run(tmp_path / "1", "fedavg", federated(0.25), seed=1, status="failed", error="why")
    found = _compared(tmp_path)
    assert _row(found, "fedavg")["accuracy"] == 0.75
    assert found.notes == [f"failed: {tmp_path / '1'}: why"]
    with pytest.raises(ValueError, match="no run completed"):
        _compared(tmp_path / "1")


def test_a_comparison_of_real_runs_is_that_of_their_files(run_of: Callable[..., Path]) -> None:
    together = run_of("backend=inline")
    single = run_of("backend=inline", "strategy=local_only")
    found = compare(load(together, single))

    def last(folder: Path, split: str, subset: str) -> list[float]:
        query = "round == 2 and split == @split and metric == 'accuracy' and subset == @subset"
        numbers: list[float] = metrics(folder).query(query)["value"].tolist()
        return numbers

    row = _row(found, "fedavg")
    for subset in ("all", "1-3-7", "2-5-8", "4-6-9"):
        column = "accuracy" if subset == "all" else f"accuracy/{subset}"
        assert [row[column]] == last(together, "test", subset)
        assert found.isolated[column].tolist() == last(single, "test", subset)
    (mine,), theirs = last(together, "test", "all"), last(single, "test", "all")
    assert found.gains["gain"].tolist() == [mine - theirs[k] for k in range(3)]
    assert row["gain_best"] == mine - max(theirs)
    own = zip(last(together, "client_test", "all"), last(single, "client_test", "all"), strict=True)
    assert found.gains["gain_own"].tolist() == [a - b for a, b in own]
    # On the labels it never saw, an isolated client is always wrong.
    unseen = [last(together, "test", subset)[0] for subset in ("1-3-7", "2-5-8", "4-6-9")]
    assert found.gains["gain_unseen"].tolist() == pytest.approx(unseen, abs=1e-12)
    held = results.partition(together)["class_counts"]
    assert [[k for k, count in enumerate(row) if not count] for row in held] == [
        [1, 3, 7],
        [2, 5, 8],
        [4, 6, 9],
    ]


def test_options_of_one_choice_are_no_setting_beside_the_choice(tmp_path: Path) -> None:
    for name, options in (("iid", {"samples_per_client": None}), ("dirichlet", {"alpha": 0.5})):
        settings = {"partition": {"name": name, **options}}
        write_run(tmp_path / name, "fedavg", federated(0.75), partition=name, settings=settings)
    assert _compared(tmp_path).table["row"].tolist() == [
        "fedavg partition=dirichlet",
        "fedavg partition=iid",
    ]
