from __future__ import annotations

import gc
import math
import weakref
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from support.helpers import config, evaluated, instruction, played_by, trained

from fedexp.config.clients import ByzantineConfig, ClientsConfig
from fedexp.core.replies import LONGEST
from fedexp.core.roles import Job, Order
from fedexp.federation.guards import (
    Gate,
    Holdings,
    UnusableReplyError,
    form_problem,
    letting_go,
)
from fedexp.federation.overflow import size_problem
from fedexp.flower.grid import CohortView
from fedexp.flower.messages import to_record

MODEL: dict[str, Any] = {"w": np.zeros((2, 2), dtype=np.float32), "n": np.zeros(1, dtype=np.int64)}


def test_weights_of_the_model_pass() -> None:
    assert form_problem({"n": MODEL["n"] + 1, "w": MODEL["w"] + 1}, MODEL) is None


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
    assert reason in str(form_problem({**MODEL, **changes}, MODEL))


def test_missing_weights_are_named() -> None:
    assert "missing ['n']" in str(form_problem({"w": MODEL["w"]}, MODEL))


# --- numbers that cannot be computed with ---------------------------------------------------------


@pytest.mark.parametrize(
    ("array", "averaged", "squared"),
    [
        (np.zeros(0, np.float32), True, True),
        (np.array(3.0, np.float32), True, True),
        (np.full(3, 1e12, np.float32), True, True),
        (np.full(3, -1.8e13, np.float32), True, False),  # a norm of 3e13: squares need headroom
        (np.full(3, 1e30, np.float32), True, False),
        (np.array([1e-3, 3.3e32], np.float32), True, False),
        (np.array([1e-3, -3.5e32], np.float32), False, False),
        (np.full(3, 3e38, np.float32), False, False),
        (np.array([0, np.nan], np.float32), False, False),
        (np.array([0, -np.inf], np.float32), False, False),
        (np.full(3, 1e100), True, True),
        (np.full(3, 1e303), False, False),
        (np.full(3, 60000, np.float16), True, True),  # half precision has no room to spare
        (np.array([0, np.inf], np.float16), False, False),
        (np.array([2**53, -(2**53)]), True, True),
        (np.array([2**53 + 1]), False, False),
        (np.array([-(2**63)]), False, False),
        (np.array([True]), True, True),
    ],
)
def test_numbers_that_servers_can_compute_with(array: Any, averaged: bool, squared: bool) -> None:
    weights = {"a": np.ones(2, np.float32), "w": array}
    assert (size_problem(weights) is None) == averaged
    assert (size_problem(weights, squared=True) is None) == squared


def test_large_numbers_that_nobody_moves_are_none_of_the_clients_doing() -> None:
    mask = {"w": np.array([0.0, 3.3e38, -3.3e38], np.float32)}
    assert size_problem(mask, mask, squared=True) is None
    assert "w changes by 1.65e+38" in str(size_problem({"w": mask["w"] / 2}, mask))


def test_what_is_too_large_is_named() -> None:
    problem = size_problem({"w": np.full(2, 3e38, np.float32)})
    assert problem == "parameter w changes by 3e+38: sums of such numbers overflow float32"
    problem = size_problem({"w": np.full(4, 1e15, np.float32)}, squared=True)
    assert str(problem).startswith("the norm of the change is 2e+15")


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


ORDER = Order(ONE)


def _held(train: list[int], test: list[int]) -> Holdings:
    return Holdings(train.__getitem__, test.__getitem__)


def _gate(holdings: Holdings | None = None, **changes: Any) -> Gate:
    return Gate(config(**changes), ("w",), holdings)


def _problem(content: RecordDict, gate: Gate) -> str | None:
    """Return why a reply to training is refused."""
    try:
        gate.update(_reply(content), 1, ORDER, ONE)
    except UnusableReplyError as error:
        return str(error)
    return None


def _silent(job: Job) -> None:
    """A client of which its page says nothing."""


def _metrics(**numbers: Any) -> MetricRecord:
    return MetricRecord({"num-examples": 3, "train_loss": 0.5, **numbers})


def _counted(count: Any) -> MetricRecord:
    return MetricRecord({"num-examples": count, "train_loss": 0.5})


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
        (_with(metrics=_counted(0)), "num-examples must be a whole number >= 1, got 0"),
        (_with(metrics=_counted(0.5)), "num-examples must be a whole number >= 1, got 0.5"),
        (_with(metrics=_counted(math.nan)), "num-examples must be a whole number >= 1, got nan"),
        (_with(metrics=_counted(6)), None),
        (_with(metrics=_counted(7)), "num-examples is 7, more than the 6 that the client holds"),
        (
            _with(metrics=_counted(10**5000)),
            "num-examples is an integer beyond 2**53, more than the 6 that the client holds",
        ),
        (
            _with(metrics=_metrics(norm=1.0)),
            "other metrics than the strategy's (missing [], unexpected ['norm'])",
        ),
        (
            _with(control=_array(1.0, 2.0)),
            "other records than the strategy's (missing [], unexpected ['control'])",
        ),
    ],
)
def test_replies_to_training(content: RecordDict, reason: str | None) -> None:
    assert _problem(content, _gate(_held([6], [4]))) == reason


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (_with(metrics=MetricRecord()), "num-examples must be a whole number >= 1, got None"),
        (_with(metrics=_counted(10**30)), "num-examples is an integer beyond 2**53, more than"),
        (_with(metrics=_metrics(norm=[1.0, np.inf])), "metric norm is [1.0, inf]"),
        (_with(metrics=_metrics(train_loss=[1.0])), "metric train_loss must be one number"),
        (_with(metrics=_metrics(norm=[1.0, 2.0])), None),
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
        (_with(masks=_array(2**62, name="other", dtype=np.int64)), None),  # an integer may be any
        (_with(notes=ConfigRecord({"word": "fine"})), None),
    ],
)
def test_replies_of_a_client_of_which_nothing_is_said(
    content: RecordDict, reason: str | None
) -> None:
    gate = Gate(played_by(_silent), ("w",))
    assert str(_problem(content, gate)).startswith(str(reason))


def test_weights_come_in_the_models_order() -> None:
    arrays = {"n": np.array(1), "w": np.zeros(2, np.float32)}
    content = _with(arrays=to_record({"w": arrays["w"], "n": arrays["n"]}))
    update = _gate().update(_reply(content), 4, Order(arrays), arrays)
    assert list(update.weights) == ["n", "w"]
    assert (update.client, update.round, update.num_examples, update.loss) == (0, 4, 3, 0.5)


def test_a_client_that_trains_on_several_clients_examples_may_report_as_many() -> None:
    gate, reply = _gate(_held([2, 1, 3], [1, 1, 1])), _reply(_with())
    assert gate.update(reply, 1, Order(ONE, examples_of=(0, 1)), ONE).num_examples == 3
    with pytest.raises(UnusableReplyError, match="more than the 2 that"):
        gate.update(reply, 1, Order(ONE), ONE)


def test_a_simulated_fault_may_add_examples_of_its_own() -> None:
    faulty = ClientsConfig(num=3, byzantine=ByzantineConfig(fraction=0.9))
    gate, reply = (
        _gate(_held([2, 1, 3], [1, 1, 1]), clients=faulty),
        _reply(_with()),
    )
    assert gate.update(reply, 1, Order(ONE), ONE).num_examples == 3
    with pytest.raises(UnusableReplyError, match="more than the 2 that"):
        gate.update(reply, 1, Order(ONE, examples_of=(0,)), ONE)  # nothing goes wrong with this one


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (evaluated(3, 0.5, 0.5), None),
        (evaluated(0, 0.0, 0.0), None),  # a client without test examples
        (evaluated(5, 0.5, 0.5), "num-examples is 5, more than the 4 that the client holds"),
        (evaluated(3, np.nan, 0.5), "metric loss is nan"),
        (evaluated(-1, 0.5, 0.5), "num-examples must be a whole number >= 0, got -1"),
        (RecordDict(), "the reply holds no metrics (metrics)"),
        (
            RecordDict({"metrics": MetricRecord({"num-examples": 1, "loss": 1.0})}),
            "other metrics than the strategy's (missing ['accuracy'], unexpected [])",
        ),
        (
            trained(1.0, num_examples=1),
            "other records than the strategy's (missing [], unexpected ['arrays'])",
        ),
    ],
)
def test_replies_to_an_evaluation(content: RecordDict, reason: str | None) -> None:
    gate, found = _gate(_held([6], [4])), None
    try:
        gate.tested(_reply(content))
    except UnusableReplyError as error:
        found = str(error)
    assert found == reason


def test_an_error_without_a_reason_is_one() -> None:
    CohortView([])
    failed = Message(Error(7), reply_to=instruction(0, 1, ArrayRecord()))
    with pytest.raises(UnusableReplyError, match="error 7"):
        _gate().tested(failed)


def test_a_reason_is_one_printable_line() -> None:
    CohortView([])
    failed = Message(
        Error(7, "a\nb\x1b[2J" + "c" * 10**6), reply_to=instruction(0, 1, ArrayRecord())
    )
    with pytest.raises(UnusableReplyError) as caught:
        _gate().tested(failed)
    assert str(caught.value).startswith("a b?[2Jcc")
    assert len(str(caught.value)) == LONGEST


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
