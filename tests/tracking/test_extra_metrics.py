"""Metrics beside accuracy and loss, from the run's files to tables and figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from support.helpers import Recorder, config, draw_nothing, metrics, run, summary, tiny_data

from fedexp import experiment
from fedexp.analysis import figures
from fedexp.analysis.comparison import compare
from fedexp.analysis.results import load
from fedexp.analysis.tables import closing_table, tables
from fedexp.config.clients import ClientsConfig
from fedexp.config.schema import StopConfig
from fedexp.experiment import Attempt
from fedexp.federation.conclusion import objective
from fedexp.strategies.local_only import LocalOnly
from fedexp.tracking.scalars import Scalars

NAMES = ("accuracy", "loss", "macro_f1", "top5")
SUBSETS = ("all", "1-3-7", "2-5-8", "4-6-9")
PLAIN = (
    "backend=inline",
    "clients.fraction_evaluate=1",
    "training.local_steps=9",
    "model=logistic",
)
MORE = (*PLAIN, "metrics=[macro_f1,top5]")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs be of a few images, and draw nothing."""
    monkeypatch.setattr(experiment, "federate", lambda _: tiny_data())
    draw_nothing(monkeypatch)


@pytest.fixture(scope="module")
def federated(run_of: Callable[..., Path]) -> Path:
    return run_of(*MORE)


@pytest.fixture(scope="module")
def isolated(run_of: Callable[..., Path]) -> Path:
    return run_of(*MORE, "strategy=local_only")


def test_every_round_subset_and_client_has_every_metric(federated: Path) -> None:
    table = metrics(federated)
    test = table.query("split == 'test'")
    assert test[["round", "subset", "metric"]].to_numpy().tolist() == [
        [server_round, subset, name]
        for server_round in (0, 1, 2)
        for subset in SUBSETS
        for name in NAMES
    ]
    own = table.query("split == 'client_test' and client == client")
    found = set(own[["round", "client", "metric"]].itertuples(index=False, name=None))
    assert found == {(k, client, name) for k in (1, 2) for client in range(3) for name in NAMES}
    assert len(own) == len(found)
    means = table.query("split == 'client_test' and client != client")
    assert set(means[["round", "metric"]].itertuples(index=False, name=None)) == {
        (k, name) for k in (1, 2) for name in NAMES
    }


def test_local_models_have_every_metric_of_their_own(isolated: Path) -> None:
    test = metrics(isolated).query("split == 'test'")
    assert set(test["model"]) == {"local"}
    found = set(test[["round", "subset", "client", "metric"]].itertuples(index=False, name=None))
    assert len(test) == len(found) == 3 * len(SUBSETS) * 3 * len(NAMES)
    final = summary(isolated)
    for name in NAMES:
        each = [final["clients"][str(k)]["all"][name] for k in range(3)]
        assert final["final"]["all"][name] == pytest.approx(np.mean(each), abs=1e-12)


def _macro_f1(counts: npt.NDArray[np.int64]) -> float:
    """Return the mean F1 of the labels that are there or named, from a confusion matrix."""
    there = counts.sum(axis=0) + counts.sum(axis=1)
    return float((2 * counts.diagonal()[there > 0] / there[there > 0]).mean())


def test_macro_f1_is_that_of_the_confusion_matrix(federated: Path, isolated: Path) -> None:
    table = pd.read_csv(federated / "confusion.csv")
    counts = table.drop(columns=["client", "true_label"]).to_numpy()
    found = summary(federated)["final"]["all"]["macro_f1"]
    assert found == pytest.approx(_macro_f1(counts), abs=1e-12)
    table = pd.read_csv(isolated / "confusion.csv")
    for client, rows in table.groupby("client"):
        counts = rows.drop(columns=["client", "true_label"]).to_numpy()
        found = summary(isolated)["clients"][str(client)]["all"]["macro_f1"]
        assert found == pytest.approx(_macro_f1(counts), abs=1e-12)


def test_the_final_numbers_are_the_last_rows(federated: Path) -> None:
    rows = metrics(federated).query("split == 'test' and round == 2")
    found = rows.pivot(index="metric", columns="subset", values="value").to_dict()
    assert summary(federated)["final"] == found
    for numbers in found.values():
        assert 0 <= numbers["accuracy"] <= numbers["top5"] <= 1


def test_what_else_is_measured_changes_no_number(
    federated: Path, run_of: Callable[..., Path]
) -> None:
    plain = run_of(*PLAIN)
    assert summary(plain)["model_sha256"] == summary(federated)["model_sha256"]
    rows = metrics(federated).query("metric not in ('macro_f1', 'top5')").reset_index(drop=True)
    pd.testing.assert_frame_equal(rows, metrics(plain), check_exact=True)


@pytest.mark.usefixtures("tiny")
def test_clients_that_never_evaluate_have_every_metric_at_the_end(tmp_path: Path) -> None:
    run(config(rounds=1, metrics=["macro_f1"]), tmp_path)
    own = metrics(tmp_path).query("split == 'client_test'")
    assert own[["round", "client", "metric"]].to_numpy().tolist() == [
        [1, client, name] for client in range(3) for name in ("accuracy", "loss", "macro_f1")
    ]


@pytest.mark.usefixtures("tiny")
def test_a_listener_is_told_every_metric() -> None:
    clients = ClientsConfig(num=3, fraction_evaluate=1.0)
    recorder, scalars = Recorder(), Scalars()
    measured = config(rounds=1, metrics=["macro_f1", "ece"], clients=clients)
    ending = Attempt(measured, recorder, verbose=False).complete()
    assert [list(report.headline) for report in recorder.reports] == [
        ["accuracy", "loss", "macro_f1", "ece"]
    ] * 2
    _, numbers = (scalars.of(report) for report in recorder.reports)
    headline = recorder.reports[1].headline
    assert {name: numbers[f"global/{name}"] for name in headline} == headline
    own = [row["ece"] for row in ending.clients]
    assert numbers["clients/ece/mean"] == pytest.approx(np.mean(own))
    assert list(ending.clients[0])[4:] == ["accuracy", "loss", "macro_f1", "ece"]


@pytest.mark.usefixtures("tiny")
def test_a_run_stops_and_is_judged_by_a_metric_of_its_own(tmp_path: Path) -> None:
    # No round can improve it by 2, in whichever direction it is better.
    for name in ("macro_f1", "brier"):
        stop = StopConfig(metric=name, min_delta=2.0, patience=2)
        judged = config(rounds=9, metrics=[name], objective=name, stop=stop)
        found = run(judged, tmp_path / name)
        assert (found["rounds"], found["stopped_early"]) == (2, True)
        assert objective(judged, found) == found["final"]["all"][name]


def test_the_closing_table_and_the_figures_have_them(
    federated: Path, isolated: Path, run_of: Callable[..., Path]
) -> None:
    plain = run_of(*PLAIN, "strategy=fedprox")
    found = load(federated, isolated, plain)
    assert found.metrics == ["macro_f1", "top5"]
    comparison = compare(found)
    accuracy, clients, *_ = tables(comparison)
    finals = {path: summary(path)["final"]["all"] for path in (federated, isolated)}
    for name in ("macro_f1", "top5"):
        shown = {
            cells["strategy"]: cells[name]
            for cells in accuracy.rows
            if not cells["strategy"].startswith(" ")
        }
        assert shown == {
            "fedavg": f"{finals[federated][name]:.3f}",
            "local_only": f"{finals[isolated][name]:.3f}",
            "fedprox": "",  # does not measure it
        }
        own = {cells["strategy"]: cells[f"own {name}"] for cells in clients.rows}
        rows = metrics(federated).query(
            "split == 'client_test' and round == 2 and client == client and metric == @name"
        )
        assert own["fedavg"] == f"{rows['value'].mean():.3f}"
        assert own["fedprox"] == ""
    text, all_completed = closing_table(federated)
    assert all_completed
    assert text.splitlines()[4].split()[1:6] == ["runs", *NAMES]
    figure = figures.learning_curves(found, comparison)
    assert len(figure.axes) == len(NAMES)
    curve = metrics(federated).query("split == 'test' and subset == 'all' and metric == 'top5'")
    (line,) = [line for line in figure.axes[3].lines if line.get_label() == "fedavg"]
    assert line.get_ydata().tolist() == curve["value"].tolist()


@pytest.mark.usefixtures("tiny")
def test_isolated_clients_are_told_as_a_mean() -> None:
    recorder, scalars = Recorder(), Scalars()
    alone = config(rounds=1, metrics=["macro_f1"], strategy=LocalOnly())
    ending = Attempt(alone, recorder, verbose=False).complete()
    _, numbers = (scalars.of(report) for report in recorder.reports)
    each = [own["all"]["macro_f1"] for own in ending.summary["clients"].values()]
    assert numbers["local/macro_f1"] == pytest.approx(np.mean(each))
    assert recorder.reports[1].local
