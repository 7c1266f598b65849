"""When a run has come far enough, and how good its models are."""

from __future__ import annotations

import math

import pytest
from support.helpers import weights_of

from fedexp.config.schema import StopConfig
from fedexp.federation.outcome import Outcome, Patience


def _exhausted(stop: StopConfig, values: list[float]) -> list[bool]:
    patience, found = Patience(stop), []
    for value in values:
        patience.take_in(value)
        found.append(patience.exhausted)
    assert not found[0]
    return found[1:]


def test_patience_counts_rounds_in_a_row() -> None:
    stop = StopConfig(metric="accuracy", min_delta=0.125, patience=2)
    # 0.5 -> 0.625 improves by just enough; 0.6875 does not, and 0.75 does against 0.625.
    curve = [0.5, 0.625, 0.6875, 0.75, 0.75, 0.8125]
    assert _exhausted(stop, curve) == [False, False, False, False, True]


def test_slow_progress_adds_up_until_patience_is_out() -> None:
    stop = StopConfig(metric="accuracy", min_delta=0.25, patience=3)
    assert _exhausted(stop, [0.0, 0.125, 0.1875, 0.25, 0.375, 0.4375, 0.46875]) == [
        *[False, False, False],
        *[False, False, True],
    ]


def test_a_loss_improves_downwards() -> None:
    stop = StopConfig(metric="loss", min_delta=0.5, patience=1)
    assert _exhausted(stop, [4.0, 3.5, 3.0, 2.75]) == [False, False, True]
    assert _exhausted(stop, [4.0, 5.0]) == [True]
    accuracy = StopConfig(metric="accuracy", min_delta=0.5, patience=1)
    assert _exhausted(accuracy, [4.0, 5.0, 5.25]) == [False, True]


def test_patience_null_never_stops() -> None:
    assert _exhausted(StopConfig(metric="accuracy", patience=None), [0.5] * 100) == [False] * 99


@pytest.mark.parametrize(("metric", "improves"), [("macro_f1", True), ("loss", False)])
def test_a_metric_says_itself_which_way_it_improves(metric: str, improves: bool) -> None:
    stop = StopConfig(metric=metric, min_delta=0.5, patience=1)
    assert _exhausted(stop, [1.0, 2.0]) == [not improves]


def test_the_headline_is_the_global_models_or_the_mean_of_the_local_ones() -> None:
    outcome = Outcome(weights_of(0.0))
    outcome.scores = {None: {"all": {"accuracy": 0.75}, "1-3-7": {"accuracy": 0.5}}}
    assert outcome.headline("accuracy") == 0.75
    outcome.scores = {k: {"all": {"accuracy": 0.25 * k}} for k in (1, 2, 3)}
    assert outcome.headline("accuracy") == 0.5


def test_where_there_is_a_global_model_the_headline_is_its_alone() -> None:
    outcome = Outcome(weights_of(0.0))
    outcome.scores = {None: {"all": {"accuracy": 0.75}}, 1: {"all": {"accuracy": 0.25}}}
    assert outcome.headline("accuracy") == 0.75


@pytest.mark.parametrize(("metric", "better"), [("accuracy", 9.0), ("loss", -9.0)])
def test_nan_is_never_improved(metric: str, better: float) -> None:
    stop = StopConfig(metric=metric, min_delta=0.0, patience=1)
    assert _exhausted(stop, [1.0, math.nan]) == [True]
    assert _exhausted(stop, [1.0, better, math.nan]) == [False, True]
    waiting = Patience(StopConfig(metric=metric, min_delta=0.0, patience=2))
    for value in (math.nan, better, math.nan):  # nor is it the best, that others must beat
        waiting.take_in(value)
    assert waiting.idle == 1


def test_a_run_diverges_where_no_model_has_a_loss_of_use() -> None:
    outcome = Outcome(weights_of(0.0))
    for losses, diverged in (
        ({None: math.nan}, True),
        ({None: math.inf}, True),
        ({None: 1e30}, True),
        ({None: 1.0, 1: math.nan}, False),
        ({0: math.nan, 1: 2.0}, False),  # an isolated client that diverged
        ({0: math.nan, 1: math.inf}, True),
    ):
        outcome.scores = {owner: {"all": {"loss": loss}} for owner, loss in losses.items()}
        assert outcome.diverged == diverged
