"""Runs of every task, from the data to tables, figures and the report."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from fedexp.analysis import figures, report, results, tables
from fedexp.analysis.comparison import compare
from fedexp.analysis.results import load
from fedexp.config.backend import InlineBackend
from fedexp.config.clients import ClientsConfig
from fedexp.config.schema import Config
from fedexp.config.training import TrainingConfig
from fedexp.datasets import Dataset
from fedexp.experiment import run_experiment
from fedexp.federation.conclusion import objective
from fedexp.federation.events import RunInfo
from fedexp.models import Model
from fedexp.models.mlp import Mlp
from fedexp.partitions.dirichlet import Dirichlet
from fedexp.partitions.iid import Iid
from fedexp.strategies.centralized import Centralized
from fedexp.strategies.fedavg import FedAvg
from fedexp.strategies.local_only import LocalOnly
from fedexp.strategies.qfedavg import QFedAvg
from fedexp.testing.tiny import TinyImages, TinyNumbers

STRATEGIES = (FedAvg(), QFedAvg(), LocalOnly(), Centralized())


def sweep(folder: Path, dataset: Dataset, model: Model, partition: Iid | Dirichlet) -> None:
    for number, strategy in enumerate(STRATEGIES):
        config = Config(
            rounds=2,
            dataset=dataset,
            model=model,
            partition=partition,
            strategy=strategy,
            clients=ClientsConfig(3),
            training=TrainingConfig(local_steps=4, batch_size=16, learning_rate=0.05),
            backend=InlineBackend(),
        )
        run_experiment(RunInfo(config, folder / f"{number}-{strategy.name}", sweep="sweep"))


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("numbers")
    sweep(folder, TinyNumbers(), Mlp(hidden=[8]), Dirichlet(alpha=1.0))
    return folder


def test_a_regression_has_no_labels_to_take_for_another(numbers: Path) -> None:
    run = numbers / "0-fedavg"
    assert not (run / "confusion.csv").exists()
    assert not (run / "confusion.png").exists()
    assert (run / "partition.png").is_file()
    summary = json.loads((run / "summary.json").read_text())
    assert summary["task"]["headline"] == "rmse"
    assert summary["best"]["rmse"] <= summary["final"]["all"]["rmse"]
    assert summary["fairness"]["max"] >= summary["fairness"]["mean"]
    content = json.loads((run / "partition.json").read_text())
    assert (content["groups"], len(content["classes"])) == ("target", 10)


def test_isolated_clients_are_worse_by_a_gain_above_0(numbers: Path) -> None:
    found = load(numbers)
    assert found.problems() == []
    comparison = compare(found)
    table: Any = comparison.table.set_index("row")
    assert comparison.goal.metric == "rmse"
    assert found.metrics == ["mae", "r2"]
    gain, alone = table.at["fedavg", "gain"], table.at["local_only", "rmse"]
    assert gain == pytest.approx(alone - table.at["fedavg", "rmse"])
    best = comparison.isolated["rmse"].min()
    assert table.at["fedavg", "gain_best"] == pytest.approx(best - table.at["fedavg", "rmse"])
    distance = table.at["centralized", "rmse"] - table.at["fedavg", "rmse"]
    assert table.at["fedavg", "to_centralized"] == pytest.approx(distance)
    assert math.isnan(table.at["fedavg", "gain_unseen"])
    final = found.finals.query("metric == 'rmse' and split == 'client_test' and run == 0")["value"]
    assert table.at["fedavg", "client_worst10"] == pytest.approx(final.max())


def test_a_target_of_errors_is_reached_from_above(numbers: Path) -> None:
    found = load(numbers)
    curve = found.curves.query("metric == 'rmse' and split == 'test' and run == 0")
    by_round = curve.set_index("round")["value"]
    table: Any = compare(found, target=float(by_round[1])).table.set_index("row")
    assert table.at["fedavg", "rounds_to_target"] == 1
    with pytest.raises(ValueError, match="must be > 0"):
        compare(found, target=-1.0)


@pytest.mark.slow  # every figure
def test_tables_figures_and_report_show_what_a_regression_has(numbers: Path) -> None:
    found = load(numbers)
    comparison = compare(found)
    assert "rmse" in tables.tables(comparison)[0].rows[0]
    names = [figure.name for figure in figures.every(found, comparison)]
    assert "confusion_matrices" not in names
    assert {"learning_curves", "gain_bars", "rmse_against_bytes", "partitions"} <= set(names)
    page = report.render(found, comparison, "numbers")
    assert "ccuracy" not in page
    assert results.confusion(found.path(0)) == {}


@pytest.mark.slow  # four more runs
def test_runs_of_another_task_are_left_out(numbers: Path, tmp_path: Path) -> None:
    sweep(tmp_path, TinyImages(), Mlp(hidden=[8]), Iid())
    both = compare(load(tmp_path, numbers))
    assert both.goal.metric == load(tmp_path, numbers).goal.metric
    assert len(both.labels) == len(STRATEGIES)
    assert any("of another task" in note for note in both.notes)


def test_a_sweeper_works_on_the_headline(numbers: Path) -> None:
    summary = json.loads((numbers / "0-fedavg" / "summary.json").read_text())
    config = Config(dataset=TinyNumbers())
    assert objective(config, summary) == summary["final"]["all"]["rmse"]
    best = Config(dataset=TinyNumbers(), objective="best_rmse")
    assert objective(best, summary) == summary["best"]["rmse"]
