"""scikit-learn's models come to what scikit-learn itself comes to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import SGDClassifier, SGDRegressor

from fedexp.config.composition import compose_config
from fedexp.core.options import ConfigError
from fedexp.data.examples import Spec
from fedexp.frameworks.base import Batch, Recipe
from fedexp.models.sklearn_sgd import SklearnSgd
from fedexp.testing.runs import run, small
from fedexp.testing.tiny import TinyPairs

RECIPE = Recipe("sgd", 0.02, 0.0, 0.01, None, ("coef", "intercept"))
PLAIN = {"alpha": 0.01, "learning_rate": "constant", "eta0": 0.02, "shuffle": False}


def _batches(classes: int, values: int = 0) -> list[Batch]:
    rng = np.random.default_rng(0)
    found = []
    for size in (8, 8, 3):
        targets: Any = rng.integers(0, classes, size) if classes else None
        if not classes:
            targets = rng.standard_normal((size, values)).astype(np.float32)
        found.append((rng.standard_normal((size, 2, 3)).astype(np.float32), targets))
    return found


@pytest.mark.parametrize("classes", [2, 4])
def test_a_classifier_is_scikit_learns(classes: int) -> None:
    learner = SklearnSgd().learner(_spec(classes), "classification")
    trained, losses = learner.fit(learner.initial(0), _batches(classes), RECIPE)
    plain = SGDClassifier(loss="log_loss", **PLAIN)
    for inputs, labels in _batches(classes):
        plain.partial_fit(inputs.reshape(-1, 6), labels, classes=np.arange(classes))
    np.testing.assert_allclose(trained["coef"], plain.coef_, rtol=1e-5)
    np.testing.assert_allclose(trained["intercept"], plain.intercept_, rtol=1e-5)
    inputs, labels = _batches(classes)[0]
    outputs = learner.outputs(trained, inputs)
    odds = np.exp(outputs) / np.exp(outputs).sum(1, keepdims=True)
    np.testing.assert_allclose(odds, plain.predict_proba(inputs.reshape(-1, 6)), rtol=1e-4)
    assert losses[0] == pytest.approx(np.log(classes), rel=1e-6)
    assert len(losses) == 3


def _spec(classes: int, values: int = 0) -> Spec:
    return Spec((2, 3), tuple(map(str, range(classes))), 19, 19, values=values)


def test_what_is_trained_begins_where_it_is_told() -> None:
    learner = SklearnSgd().learner(_spec(4), "classification")
    whole, _ = learner.fit(learner.initial(0), _batches(4), RECIPE)
    first, _ = learner.fit(learner.initial(0), _batches(4)[:2], RECIPE)
    rest, _ = learner.fit(first, _batches(4)[2:], RECIPE)
    for name, array in whole.items():
        np.testing.assert_allclose(rest[name], array, rtol=1e-5)


def test_a_regression_is_scikit_learns() -> None:
    learner = SklearnSgd().learner(_spec(0, values=2), "regression")
    trained, _ = learner.fit(learner.initial(0), _batches(0, 2), RECIPE)
    for row in range(2):
        plain = SGDRegressor(**PLAIN)
        for inputs, targets in _batches(0, 2):
            plain.partial_fit(inputs.reshape(-1, 6), targets[:, row])
        np.testing.assert_allclose(trained["coef"][row], plain.coef_, rtol=1e-5)
        np.testing.assert_allclose(trained["intercept"][row], plain.intercept_[0], rtol=1e-5)


@pytest.mark.slow
def test_a_run_learns() -> None:
    training = replace(small().training, momentum=0.0, learning_rate=1e-3, local_steps=20)
    ending, told = run(small(model=SklearnSgd(), training=training))
    assert not told.failures
    assert ending.summary["final"]["all"]["accuracy"] > 0.5
    ending, _ = run(small(model=SklearnSgd(), training=training, dataset=TinyPairs()))
    assert ending.summary["final"]["all"]["r2"] > 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "training.momentum must be 0.0, got 0.9"),
        (["training.optimizer=adam"], "training.optimizer must be sgd, got adam"),
        (["training.max_grad_norm=1"], "training.max_grad_norm must be null, got 1.0"),
        (
            ["strategy=fednova"],
            "fednova divides updates by the SGD steps behind them, and model=sk",
        ),
        (
            ["strategy=fedprox"],
            "strategy=fedprox asks clients for job.train(pull=...), which model=sk",
        ),
    ],
)
def test_what_scikit_learn_has_not_is_refused(words: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(told)):
        compose_config(["model=sklearn_sgd", *words])


@pytest.fixture(autouse=True)
def _quiet(recwarn: pytest.WarningsRecorder) -> Iterator[None]:
    yield
    assert not [w for w in recwarn if "sklearn" in str(w.filename)]
