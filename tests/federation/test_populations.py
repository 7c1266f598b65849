"""Runs of a hundred million clients cost what their cohorts cost, and say which clients they list."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.helpers import config as of
from support.helpers import leave_out_the_rest

from fedexp.analysis import figures
from fedexp.analysis.captions import caption
from fedexp.analysis.comparison import compare
from fedexp.analysis.results import load
from fedexp.analysis.rows import Rows
from fedexp.analysis.tables import render
from fedexp.config.clients import ByzantineConfig, ClientsConfig
from fedexp.config.schema import Config
from fedexp.config.training import TrainingConfig
from fedexp.data.population import TEST
from fedexp.datasets.synthetic_devices import SyntheticDevices
from fedexp.experiment import run_experiment
from fedexp.federation.cohort import draw_cohort
from fedexp.federation.dealing import federate
from fedexp.federation.events import RunInfo
from fedexp.federation.rounds import RoundLoop
from fedexp.flower.grid import CohortGrid
from fedexp.models.logistic import Logistic
from fedexp.partitions.iid import Iid
from fedexp.partitions.population import Population
from fedexp.partitions.resample import Resample
from fedexp.preview import partition_table
from fedexp.strategies.centralized import Centralized
from fedexp.strategies.fedavg import FedAvg
from fedexp.strategies.local_only import LocalOnly
from fedexp.strategies.scaffold import Scaffold
from fedexp.testing.runs import resumes_alike, run, same_everywhere, small

MANY = 100_000_000
PANEL = 6


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what most of the time of a small run goes into: its pictures, collecting garbage."""
    leave_out_the_rest(monkeypatch)


def population(num: int = MANY, cohort: int = 4, **changes: Any) -> Config:
    """Return an experiment of ``num`` clients, of which ``cohort`` train in a round."""
    more = {"fraction_evaluate": cohort / num, **changes.pop("clients", {})}
    clients = ClientsConfig(num, fraction_train=cohort / num, **more)
    partition = Resample(samples_per_client=20, panel=PANEL, **changes.pop("partition", {}))
    return small(partition=partition, clients=clients, **changes)


def devices(num: int = MANY, cohort: int = 4, **changes: Any) -> Config:
    """Return such an experiment on clients whose examples themselves are drawn."""
    drawn = {
        "dataset": SyntheticDevices(samples_per_client=20),
        "partition": Population(panel=PANEL),
        "model": Logistic(),
    }
    return replace(population(num, cohort), **{**drawn, **changes})


@pytest.mark.parametrize("of_many", [population, devices])
def test_a_run_takes_the_memory_of_its_cohorts(of_many: Callable[[int], Config]) -> None:
    def peak(num: int) -> int:
        tracemalloc.start()
        run(of_many(num))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(1_000)  # what the first run imports and reads is not the second one's
    few, many = peak(1_000), peak(MANY)
    assert many < few + 500_000, "a byte a client would be 100 MB"


def test_numbers_are_those_of_cohorts_and_of_the_panel() -> None:
    plan = population(strategy=Scaffold())
    ending, told = run(plan)
    listed = list(federate(plan).partition.listed)
    assert len(listed) == PANEL
    evaluated = {(row.round, row.client) for row in told.measurements if row.split == "client_test"}
    cohorts = {(t, k) for t in (1, 2) for k in draw_cohort(plan, "evaluate_cohort", 4 / MANY, t)}
    assert {(t, k) for t, k in evaluated if k is not None} == cohorts
    assert {row.client for row in ending.measurements} == {*listed}
    assert [row["client"] for row in ending.clients] == listed
    assert all(row["images"] == 20 and row["accuracy"] is not None for row in ending.clients)
    mine = [row.value for row in ending.measurements if row.metric == "accuracy"]
    assert ending.summary["fairness"]["mean"] == pytest.approx(sum(mine) / PANEL)
    (note,) = (line for line in ending.notes if "panel" in line)
    assert f"{PANEL} of 100,000,000" in note


def test_drawn_clients_train_and_are_tested_on_what_is_drawn_for_them() -> None:
    plan = devices(rounds=1, training=TrainingConfig(local_steps=3, batch_size=8))
    ending, told = run(plan)
    page, (client, *_) = plan.dataset.population, draw_cohort(plan, "evaluate_cohort", 4 / MANY, 1)
    assert page is not None
    assert ending.weights is not None
    inputs, labels = (page.draw(client)[TEST].inputs, page.draw(client)[TEST].targets)
    weight, bias = ending.weights.values()
    expected = float(((inputs @ weight.T + bias).argmax(axis=1) == labels).mean())
    (found,) = (
        row.value
        for row in told.measurements
        if (row.split, row.client, row.metric) == ("client_test", client, "accuracy")
    )
    assert found == pytest.approx(expected)
    assert len(ending.clients) == PANEL
    assert all(row["images"] == 20 and row["test_images"] == 2 for row in ending.clients)
    (note,) = (line for line in ending.notes if "panel" in line)
    assert f"{PANEL} of 100,000,000" in note


def test_drawn_clients_may_be_trained_in_one_place_or_alone() -> None:
    reference, told = run(devices(strategy=Centralized()))
    assert reference.summary["status"] == "completed"
    assert not told.failures
    few = devices(PANEL, PANEL)
    together, _ = run(few)
    alone, _ = run(replace(few, strategy=LocalOnly()))
    assert alone.summary["partition_sha256"] == together.summary["partition_sha256"]
    assert {*alone.summary["clients"]} == {str(client) for client in range(PANEL)}


def test_a_killed_run_on_drawn_clients_goes_on_to_the_bit() -> None:
    page = SyntheticDevices(samples_per_client=20, validation=0.2)
    resumes_alike(devices(rounds=3, strategy=Scaffold(), dataset=page))


def test_models_are_selected_on_what_the_panel_does_not_train_on() -> None:
    page = SyntheticDevices(samples_per_client=20, validation=0.2)
    ending, told = run(devices(dataset=page))
    assert ending.summary["selected_on"] == "validation"
    assert {row.split for row in told.measurements} == {"train", "test", "val", "client_test"}
    assert all(row["images"] == 16 for row in ending.clients)


@pytest.mark.slow
def test_drawn_clients_are_the_same_wherever_they_are_drawn() -> None:
    same_everywhere(devices(dataset=SyntheticDevices(validation=0.1)), ("inline", "ray"))
    same_everywhere(devices(20), ("inline", "flower"))


def test_of_clients_that_keep_nothing_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[CohortGrid] = []
    loops: list[RoundLoop] = []
    whole = RoundLoop.run

    def watched(loop: RoundLoop, grid: CohortGrid, *args: Any) -> None:
        kept.append(grid)
        loops.append(loop)
        whole(loop, grid, *args)

    monkeypatch.setattr(RoundLoop, "run", watched)
    for strategy, number in ((FedAvg(), 0), (Scaffold(), 8)):
        run(population(strategy=strategy))
        assert len(kept[-1].states) == number
        assert not loops[-1].outcome.own, "nobody who was asked is listed"


def test_further_steps_and_references_are_of_the_panel_and_of_cohorts() -> None:
    plan = population(clients={"tuned_steps": 2})
    ending, _ = run(plan)
    assert {row.client for row in ending.further} == {*federate(plan).partition.listed}
    reference, told = run(population(strategy=Centralized()))
    assert reference.summary["status"] == "completed"
    assert not told.failures


def test_a_share_of_many_may_be_faulty_or_drop_out() -> None:
    faulty = ByzantineConfig(fraction=5 / MANY)
    ending, _ = run(population(clients={"byzantine": faulty, "dropout": 0.3}))
    assert len(ending.summary["byzantine"]) == 5
    everybody = ByzantineConfig(fraction=0.9)
    _, told = run(population(num=1_000, clients={"byzantine": everybody}))
    assert not told.failures


def test_few_clients_may_be_compared_with_isolated_ones() -> None:
    few = population(PANEL, PANEL)
    together, _ = run(few)
    alone, _ = run(replace(few, strategy=LocalOnly()))
    assert alone.summary["partition_sha256"] == together.summary["partition_sha256"]
    assert {*alone.summary["clients"]} == {str(client) for client in range(PANEL)}
    assert not any("panel" in note for note in together.notes)


@pytest.mark.parametrize("alpha", [None, 0.3])
def test_a_killed_run_goes_on_to_the_bit(alpha: float | None) -> None:
    resumes_alike(population(rounds=3, strategy=Scaffold(), partition={"alpha": alpha}))


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [None, 0.3])
def test_clients_are_the_same_wherever_they_are_computed(alpha: float | None) -> None:
    same_everywhere(population(partition={"alpha": alpha}), ("inline", "ray"))


@pytest.mark.slow
def test_few_of_them_are_the_same_on_flower() -> None:
    same_everywhere(population(num=20), ("inline", "flower"))


@pytest.mark.slow
def test_a_folder_and_what_is_made_of_it_say_who_is_listed(tmp_path: Path) -> None:
    quick = {"rounds": 1}
    for name, partition in (("a", Resample(samples_per_client=20, panel=PANEL)), ("b", Iid())):
        clients = ClientsConfig(*((MANY, 4 / MANY) if name == "a" else (3,)))
        run_experiment(RunInfo(of(partition=partition, clients=clients, **quick), tmp_path / name))
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "a").iterdir()}
    assert max(sizes.values()) < 200_000
    told = json.loads((tmp_path / "a" / "partition.json").read_text())
    own = pd.read_csv(tmp_path / "a" / "metrics.csv").dropna(subset="client")
    assert sorted(set(own["client"].astype(int))) == told["clients"]
    found = load(tmp_path)
    comparison = compare(found)
    assert f"of {PANEL} drawn at random" in comparison.about
    assert "resample" in render(comparison)
    said = caption("partitions", found, Rows(found, comparison))
    assert "100,000,000" in said
    figure = figures.partitions(found, comparison)
    axes = [panel.get_xlabel() for panel in figure.axes]
    assert f"{PANEL} of 100,000,000 clients" in axes


def test_the_preview_lists_the_panel() -> None:
    plan = population(num=MANY)
    text = partition_table(plan, federate(plan))
    for client in federate(plan).partition.listed:
        assert f"\n{client} " in text
    assert "99,999,994 more clients" in text
