from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from support.helpers import evaluated, instruction, trained

from fedexp.federation.guards import (
    evaluation_problem,
    letting_go,
    metrics_problem,
    training_problem,
    weights_problem,
)
from fedexp.flower.grid import CohortView
from fedexp.flower.messages import to_record

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


# --- whole replies --------------------------------------------------------------------------------

ONE: dict[str, Any] = {"w": np.zeros(2, np.float32)}


def _reply(content: RecordDict) -> Message:
    CohortView([])  # sets who this process is
    return Message(content, reply_to=instruction(0, 1, ArrayRecord()))


def _with(**records: Any) -> RecordDict:
    """Return a sound reply to training with some records changed; None takes one away."""
    content = trained(1.0, 2.0, num_examples=3)
    for name, record in records.items():
        if record is None:
            del content[name]
        else:
            content[name] = record
    return content


def _array(*values: float, name: str = "w", dtype: type = np.float32) -> ArrayRecord:
    return to_record({name: np.array(values, dtype)})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (_with(), None),
        (_with(arrays=None), "the reply holds no weights (arrays)"),
        (_with(arrays=ConfigRecord()), "the reply holds no weights (arrays)"),
        (_with(arrays=_array(1.0)), "parameter w is float32(1,), the model's is float32(2,)"),
        (_with(arrays=_array(1.0, np.nan)), "parameter w holds NaN or infinity"),
        (_with(metrics=None), "the reply holds no metrics (metrics)"),
        (_with(metrics=ConfigRecord()), "the reply holds no metrics (metrics)"),
        (_with(metrics=MetricRecord()), "num-examples must be a number >= 0, got None"),
        (
            _with(metrics=MetricRecord({"num-examples": 0})),
            "num-examples must be >= 1 after training",
        ),
        (
            _with(metrics=MetricRecord({"num-examples": 1, "norm": [1.0, np.inf]})),
            "metric norm is [1.0, inf]",
        ),
        # Further arrays: what is named as the model's must be like it, and all must be finite.
        (_with(control=_array(1.0, 2.0)), None),
        (_with(control=_array(1.0, name="other", dtype=np.float64)), None),
        (
            _with(control=_array(1.0)),
            "control: parameter w is float32(1,), the model's is float32(2,)",
        ),
        (_with(control=_array(1.0, np.inf)), "control: parameter w holds NaN or infinity"),
        (
            _with(control=_array(np.nan, name="other")),
            "control: parameter other holds NaN or infinity",
        ),
        (_with(notes=ConfigRecord({"word": "fine"})), None),
    ],
)
def test_replies_to_training(content: RecordDict, reason: str | None) -> None:
    assert training_problem(_reply(content), ONE) == reason


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (evaluated(3, 0.5, 0.5), None),
        (evaluated(0, 0.0, 0.0), None),  # a client without test examples
        (evaluated(3, np.nan, 0.5), "metric loss is nan"),
        (evaluated(-1, 0.5, 0.5), "num-examples must be a number >= 0, got -1"),
        (RecordDict(), "the reply holds no metrics (metrics)"),
    ],
)
def test_replies_to_an_evaluation(content: RecordDict, reason: str | None) -> None:
    assert evaluation_problem(_reply(content)) == reason


# --- what becomes of replies ----------------------------------------------------------------------


def test_a_reply_that_was_looked_into_goes_with_its_last_reference() -> None:
    content = RecordDict({"arrays": to_record({"w": np.zeros(3)})})
    alive = weakref.ref(content)
    with letting_go():
        assert len(content.array_records) == 1  # the view and its check know each other
    del content
    assert alive() is None
    assert gc.isenabled()


def test_garbage_is_collected_again_after_an_error() -> None:
    with pytest.raises(ValueError, match="no aggregate"), letting_go():
        raise ValueError("no aggregate")
    assert gc.isenabled()


def test_who_had_switched_collection_off_finds_it_off() -> None:
    gc.disable()
    try:
        with letting_go():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
