from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedexp.federation.guards import metrics_problem, weights_problem

MODEL: dict[str, Any] = {"w": np.zeros((2, 2), dtype=np.float32), "n": np.zeros(1, dtype=np.int64)}


def test_weights_of_the_model_pass() -> None:
    assert weights_problem({"n": MODEL["n"] + 1, "w": MODEL["w"] + 1}, MODEL) is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"extra": MODEL["n"]}, "unexpected ['extra']"),
        ({"w": np.zeros((4,), dtype=np.float32)}, "parameter w is float32(4,)"),
        ({"w": np.zeros((2, 2))}, "parameter w is float64(2, 2)"),
        ({"w": np.array([[0, np.nan], [0, 0]], dtype=np.float32)}, "w holds NaN or infinity"),
        ({"w": np.array([[0, np.inf], [0, 0]], dtype=np.float32)}, "w holds NaN or infinity"),
    ],
)
def test_other_weights_are_named(changes: dict[str, Any], reason: str) -> None:
    assert reason in str(weights_problem({**MODEL, **changes}, MODEL))


def test_missing_weights_are_named() -> None:
    assert "missing ['n']" in str(weights_problem({"w": MODEL["w"]}, MODEL))


@pytest.mark.parametrize(
    ("metrics", "reason"),
    [
        ({"k": 3, "loss": 0.5}, None),
        ({"k": 0}, None),
        ({"loss": 0.5}, "k must be a number >= 0, got None"),
        ({"k": -1}, "k must be a number >= 0, got -1"),
        ({"k": float("nan")}, "k must be a number >= 0, got nan"),
        ({"k": 3, "loss": float("inf")}, "metric loss is inf"),
        ({"k": 3, "loss": float("nan")}, "metric loss is nan"),
        ({"k": float("inf")}, "metric k is inf"),
        ({"k": "3"}, "k must be a number >= 0, got 3"),
    ],
)
def test_metrics(metrics: dict[str, Any], reason: str | None) -> None:
    assert metrics_problem(metrics, "k") == reason
