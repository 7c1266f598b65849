from __future__ import annotations

import dataclasses
import hashlib
import math
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import numpy as np
import pytest
from safetensors.numpy import load_file
from support.helpers import metrics, summary, weights_of

from fedexp import datasets
from fedexp.config.composition import compose_config
from fedexp.config.schema import Config
from fedexp.core.options import ConfigError
from fedexp.core.roles import Server
from fedexp.data.examples import Examples, Spec
from fedexp.datasets import Dataset
from fedexp.datasets.toy_regression import ToyRegression
from fedexp.experiment import run_experiment
from fedexp.federation.conclusion import objective
from fedexp.federation.events import RunInfo
from fedexp.federation.outcome import Outcome, Patience
from fedexp.federation.snapshot import restore, take

SHORT = (
    "dataset=clouds",
    "model=logistic",
    "backend=inline",
    "partition=iid",
    "training.local_steps=1",
    "training.learning_rate=0.02",
    "rounds=6",
)


@dataclasses.dataclass(frozen=True)
class Clouds(Dataset):
    """Four overlapping clouds of points; the test labels can be shuffled."""

    poisoned: ClassVar[bool] = False
    facts = Spec((6,), ("a", "b", "c", "d"), 400, 120)

    name: str = "clouds"

    def load(self) -> tuple[Examples, Examples]:
        rng = np.random.default_rng(0)
        centres = rng.normal(size=(4, 6))
        labels = rng.permutation(np.arange(520) % 4)
        inputs = (centres[labels] + 1.3 * rng.normal(size=(520, 6))).astype(np.float32)
        train, test = Examples(inputs[:400], labels[:400]), Examples(inputs[400:], labels[400:])
        if self.poisoned:
            test = Examples(test.inputs, np.random.default_rng(1).permutation(test.targets))
        return train, test


@pytest.fixture(autouse=True)
def _clouds() -> Iterator[None]:
    datasets.REGISTRY.register(Clouds)
    with mock.patch("fedexp.federation.conclusion.drawn", return_value=({}, [])):
        yield
    datasets.REGISTRY.forget("clouds")


def _run(folder: Path, *overrides: str) -> Config:
    return _go(folder, compose_config([*SHORT, *overrides]))


def _go(folder: Path, config: Config) -> Config:
    with mock.patch("fedexp.data.loading._loaded", OrderedDict()):
        run_experiment(RunInfo(config, folder))
    return config


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _selected(folder: Path, config: Config) -> dict[str, Any]:
    """Return all that a run has selected."""
    found = summary(folder)
    best = found["best"]
    return {
        "round": best["round"],
        "rounds": best.get("rounds"),
        "validation": best["validation"],
        "stopped after": found["rounds"],
        "models": [_sha256(folder / f"{name}.safetensors") for name in ("model", "best")],
        "hashes": [found["model_sha256"], found["best_sha256"]],
        "objective": objective(config, found),
    }


def _cases() -> Iterator[Any]:
    for by in ("server", "clients", "both"):
        for strategy, metric in (
            *(("fedavg", "accuracy"), ("local_only", "loss"), ("centralized", "loss")),
            *(("qfedavg", "accuracy"), ("scaffold", "loss")),
        ):
            fast = (strategy, by) == ("fedavg", "both")
            yield pytest.param(strategy, metric, by, marks=() if fast else pytest.mark.slow)


@pytest.mark.parametrize(("strategy", "metric", "by"), list(_cases()))
def test_poisoned_test_data_change_nothing_that_was_selected(
    tmp_path: Path, strategy: str, metric: str, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = [
        *(f"strategy={strategy}", f"dataset.validation_by={by}", "dataset.validation=0.2"),
        *(f"stop.metric={metric}", "stop.patience=2", "stop.min_delta=0.01", "rounds=12"),
        *(f"objective={metric}", "clients.fraction_evaluate=1"),
    ]
    rates = (0.3, 0.002) if (strategy, by) == ("fedavg", "both") else (0.3, 0.05, 0.002)
    config = compose_config([*SHORT, *told])
    runs: dict[bool, list[dict[str, Any]]] = {}
    tested: dict[bool, list[float]] = {}
    for poisoned in (False, True):
        monkeypatch.setattr(Clouds, "poisoned", poisoned)
        runs[poisoned], tested[poisoned] = [], []
        for rate in rates:
            folder = tmp_path / f"{poisoned}-{rate}"
            training = dataclasses.replace(config.training, learning_rate=rate)
            _go(folder, dataclasses.replace(config, training=training))
            runs[poisoned].append(_selected(folder, config))
            tested[poisoned].append(summary(folder)["best"]["accuracy"])
    assert runs[False] == runs[True]
    sign = 1 if metric == "accuracy" else -1
    merits = [[sign * run["objective"] for run in runs[poisoned]] for poisoned in (False, True)]
    assert np.argmax(merits[0]) == np.argmax(merits[1])  # what tuning would choose
    assert max(tested[True]) < 0.5 < max(tested[False])  # and yet the test data were poisoned


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_poisoned_test_data_do_not_decide_what_has_diverged(
    tmp_path: Path, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = ToyRegression.load

    def poisoned(self: ToyRegression) -> tuple[Examples, Examples]:
        train, test = load(self)
        return train, Examples(test.inputs, test.targets * np.float32(1e-5))

    monkeypatch.setattr(ToyRegression, "load", poisoned)
    words = ("dataset=toy_regression", "model=linear", "partition=iid", "rounds=1")
    short = ("backend=inline", "training.local_steps=1")
    _go(tmp_path, compose_config([*words, *short, f"dataset.validation={share}"]))
    assert summary(tmp_path)["status"] == ("completed" if share else "diverged")


def test_without_validation_poisoned_test_data_do_change_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = []
    for poisoned in (False, True):
        monkeypatch.setattr(Clouds, "poisoned", poisoned)
        _run(tmp_path / f"{poisoned}")
        rounds.append(summary(tmp_path / f"{poisoned}")["best"])
    assert rounds[0] != rounds[1]


def test_the_best_model_is_that_of_the_best_round(tmp_path: Path) -> None:
    _run(
        tmp_path,
        "save_every=1",
        "dataset.validation=0.1",
        "training.learning_rate=2",
    )
    found, table = summary(tmp_path), metrics(tmp_path)
    known = table.query("split == 'val' and metric == 'accuracy'").set_index("round")["value"]
    best = found["best"]
    assert best["round"] == known.idxmax()
    assert 0 < best["round"] < 6  # else the test would say nothing
    assert best["validation"]["accuracy"] == known.max()
    kept = {path.stem: load_file(path) for path in (tmp_path / "models").iterdir()}
    assert sorted(kept) == [f"round-{number}" for number in range(1, 7)]
    for name, array in load_file(tmp_path / "best.safetensors").items():
        np.testing.assert_array_equal(array, kept[f"round-{best['round']}"][name])
    for name, array in load_file(tmp_path / "model.safetensors").items():
        np.testing.assert_array_equal(array, kept["round-6"][name])
    tested = table.query("split == 'test' and subset == 'all' and metric == 'accuracy'")
    assert best["accuracy"] == tested.set_index("round")["value"][best["round"]]
    assert found["final"]["all"]["accuracy"] == tested["value"].iloc[-1]
    assert found["selected_on"] == "validation"


def test_isolated_clients_select_a_round_each_on_their_own_examples(tmp_path: Path) -> None:
    told = ("strategy=local_only", "dataset.validation=0.2", "dataset.validation_by=both")
    _run(tmp_path, *told, "save_every=1", "training.learning_rate=1", "stop.metric=loss")
    table, best = metrics(tmp_path), summary(tmp_path)["best"]
    chosen = load_file(tmp_path / "best.safetensors")
    own = table.query("split == 'client_val' and metric == 'loss'").set_index(["client", "round"])
    for client, number in best["rounds"].items():
        assert number == own["value"][int(client)].idxmin()
        then = load_file(tmp_path / "models" / f"round-{number}.safetensors") if number else {}
        for name, array in then.items():
            if name.startswith(f"{client}/"):
                np.testing.assert_array_equal(array, chosen[name])
    assert best["round"] == max(best["rounds"].values())
    means = own["value"].groupby("client").min().mean()
    assert best["validation"]["loss"] == pytest.approx(means)


def test_clients_examples_weigh_alike_in_what_the_global_model_is_selected_by(
    tmp_path: Path,
) -> None:
    _run(tmp_path, "dataset.validation=0.3", "dataset.validation_by=clients", "rounds=1")
    table = metrics(tmp_path)
    assert set(table["split"]) == {"train", "test", "client_test", "client_val"}
    assert table.query("split == 'client_val'")["client"].isna().all()


def test_objective_worst10_is_about_examples_that_clients_hold_out(tmp_path: Path) -> None:
    told = ("dataset.validation=0.2", "objective=worst10")
    with pytest.raises(ConfigError, match=r"dataset.validation_by must be clients or both"):
        compose_config([*SHORT, *told])
    config = _run(tmp_path, *told, "dataset.validation_by=clients", "rounds=1")
    found = summary(tmp_path)
    assert objective(config, found) == found["best"]["validation_worst10"]


def test_a_share_of_less_than_one_example_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"dataset.validation=0.001 of 400 .*at least 0.0025"):
        compose_config([*SHORT, "dataset.validation=0.001"])
    with pytest.raises(ConfigError, match=r"clients.num must be <= 200, .* less the 200"):
        compose_config([*SHORT, "dataset.validation=0.5", "clients.num=300"])


def _chosen(values: list[float], metric: str = "accuracy") -> int:
    outcome = Outcome(weights_of(0.0))
    for number, value in enumerate(values):
        outcome.models = {None: weights_of(float(number))}
        outcome.val = {None: {metric: value}}
        outcome.choose(number, metric)
    return outcome.chosen[None].round


@pytest.mark.parametrize(
    ("values", "metric", "expected"),
    [
        ([0.1, 0.3, 0.3, 0.2], "accuracy", 1),
        ([3.0, 1.0, 2.0], "loss", 1),
        ([0.0, 0.0], "accuracy", 0),
        ([math.nan, 0.1, math.nan], "accuracy", 1),
        ([0.2, math.nan, 0.1], "accuracy", 0),
    ],
)
def test_the_first_of_the_best_rounds_is_chosen(
    values: list[float], metric: str, expected: int
) -> None:
    assert _chosen(values, metric) == expected


def test_a_client_with_nothing_to_go_by_keeps_its_last_model() -> None:
    outcome = Outcome(weights_of(0.0))
    for number in range(3):
        outcome.models = {0: weights_of(float(number)), 1: weights_of(float(-number))}
        outcome.val = {0: {"accuracy": [0.2, 0.9, 0.1][number]}}
        outcome.choose(number, "accuracy")
    assert [outcome.chosen[client].round for client in (0, 1)] == [1, 2]


def test_an_objective_that_a_file_says_nothing_of_is_not_a_number(tmp_path: Path) -> None:
    config = _run(tmp_path, "rounds=1", "objective=loss", "dataset.validation=0.1")
    found = summary(tmp_path)
    found["best"]["validation"]["loss"] = None
    assert math.isnan(objective(config, found))


def test_models_that_come_and_go_can_be_kept() -> None:
    outcome, server, stop = Outcome(weights_of(0.0)), Server(), Patience(Config().stop)
    grid = mock.Mock(client_states=dict)
    outcome.models = {0: weights_of(1.0), 1: weights_of(2.0)}
    outcome.val = {0: {"accuracy": 0.5}, 1: {"accuracy": 0.5}}
    outcome.choose(1, "accuracy")
    outcome.models = {1: weights_of(3.0)}
    outcome.val = {1: {"accuracy": 0.7}}
    outcome.choose(2, "accuracy")
    state = take(outcome, server, grid, stop, lambda now: now.models)
    again = Outcome(weights_of(0.0))
    restore(state, again, Server(), grid, stop, lambda _: dict(outcome.models))
    kept = {owner: choice.weights["w"].item() for owner, choice in again.chosen.items()}
    assert kept == {0: 1.0, 1: 3.0}


def test_what_a_strategy_writes_into_later_does_not_change_the_best_model() -> None:
    outcome, weights = Outcome(weights_of(0.0)), weights_of(1.0)
    outcome.models, outcome.val = {None: weights}, {None: {"accuracy": 0.5}}
    outcome.choose(1, Config().stop.metric)
    weights["w"][:] = 7
    assert outcome.chosen[None].weights["w"].tolist() == [1.0]
