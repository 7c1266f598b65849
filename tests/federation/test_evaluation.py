"""The server's evaluation: the whole test set, its subsets, and the clients' shares of it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.helpers import HalfFrozen, Recorder, config, initial_weights, same_weights, tiny_data

from fedexp.core.weights import Weights
from fedexp.data.examples import Examples
from fedexp.experiment import Attempt
from fedexp.federation.client import ClientNode
from fedexp.federation.evaluation import ServerEvaluation
from fedexp.models.mobilenet_v3_small import MobilenetV3Small
from fedexp.partitions.exclude import Exclude
from fedexp.partitions.iid import Iid
from fedexp.strategies import Strategy
from fedexp.strategies.fedadam import FedAdam
from fedexp.strategies.fedavg import FedAvg
from fedexp.strategies.fednova import FedNova

TARGETS = np.array([3, 3, 1, 3, 0, 7, 3, 1, 1, 0])


def _data() -> Any:
    """Return data whose test set has known labels; clients have 3, 5 and 2 of them in turn."""
    data = tiny_data()
    return replace(data, test=Examples(data.test.inputs, TARGETS))


def _always(label: int) -> Weights:
    """Return a model that predicts one label, whatever the image, with odds of e to 1."""
    weights = {name: np.zeros_like(a) for name, a in initial_weights(config()).items()}
    weights["1.bias"][label] = 1.0
    return weights


def _loss(right: float) -> float:
    """Return the mean loss if such a model is right about a share of the images."""
    return math.log(9 + math.e) - right


def test_scores_by_hand() -> None:
    evaluation = ServerEvaluation(config(), _data())
    (scores,) = evaluation.scores(_always(3)).values()
    assert scores == {"accuracy": 0.4, "loss": pytest.approx(_loss(0.4), abs=1e-6)}
    assert list(scores) == ["accuracy", "loss"]


def test_subsets_are_of_the_test_set() -> None:
    experiment = config(partition=Exclude(exclude=[[1, 3], [7], [9]]))
    scores = ServerEvaluation(experiment, _data()).scores(_always(3))
    found = {subset: metrics["accuracy"] for subset, metrics in scores.items()}
    # Nobody has a 9 to be tested on. Of 1 and 3, four of seven are right; of 7, none.
    assert found == {"all": 0.4, "1-3": pytest.approx(4 / 7), "7": 0.0}
    assert scores["1-3"]["loss"] == pytest.approx(_loss(4 / 7), abs=1e-6)


def test_the_confusion_of_a_model() -> None:
    counts = ServerEvaluation(config(), _data()).confusion(_always(3))
    expected = np.zeros((10, 10), dtype=np.int64)
    expected[:, 3] = np.bincount(TARGETS, minlength=10)
    np.testing.assert_array_equal(counts, expected)


def test_clients_are_scored_on_their_own_shares() -> None:
    evaluation = ServerEvaluation(config(), _data())
    scores = evaluation.client_scores(_always(3), range(3))
    # 3 3 1 | 3 0 7 3 1 | 1 0
    assert {k: own["accuracy"] for k, own in scores.items()} == {
        0: pytest.approx(2 / 3),
        1: pytest.approx(2 / 5),
        2: 0.0,
    }
    assert scores[1]["loss"] == pytest.approx(_loss(2 / 5), abs=1e-6)
    assert list(evaluation.client_scores(_always(3), [2, 0])) == [2, 0]


def test_a_client_without_a_share_has_no_score() -> None:
    evaluation = ServerEvaluation(config(), tiny_data(test_sizes=(4, 0, 6)))
    assert list(evaluation.client_scores(_always(3), range(3))) == [0, 2]
    assert evaluation.client_scores(_always(3), [1]) == {}
    assert evaluation.client_scores(_always(3), []) == {}


def test_what_the_model_consists_of() -> None:
    plain = ServerEvaluation(config(), tiny_data())
    assert same_weights(plain.initial, initial_weights(config()))
    assert plain.parameters == ("1.weight", "1.bias")
    assert (plain.buffers, plain.frozen) == (frozenset(), frozenset())


def test_batchnorms_statistics_are_buffers() -> None:
    evaluation = ServerEvaluation(config(model=MobilenetV3Small()), tiny_data())
    kinds = {name.rsplit(".", 1)[-1] for name in evaluation.buffers}
    assert kinds == {"running_mean", "running_var", "num_batches_tracked"}
    assert set(evaluation.parameters) | evaluation.buffers == set(evaluation.initial)
    assert not set(evaluation.parameters) & evaluation.buffers


# --- parameters that nobody trains ----------------------------------------------------------------


def test_frozen_parameters_are_neither_trained_nor_buffers() -> None:
    evaluation = ServerEvaluation(config(model=HalfFrozen()), tiny_data())
    first, second = list(evaluation.initial)[:2], list(evaluation.initial)[2:]
    assert evaluation.frozen == set(first)
    assert evaluation.parameters == tuple(second)
    assert evaluation.buffers == frozenset()


@pytest.mark.parametrize("strategy", [FedAvg(), FedAdam(), FedNova()], ids=lambda s: s.name)
def test_frozen_parameters_end_a_run_as_they_began(strategy: Strategy) -> None:
    few = Iid(samples_per_client=20)
    experiment = config(model=HalfFrozen(), strategy=strategy, partition=few, rounds=2)
    ending = Attempt(experiment, Recorder(), verbose=False).complete()
    initial = initial_weights(experiment)
    assert ending.weights is not None
    same = {name: ending.weights[name].tobytes() == initial[name].tobytes() for name in initial}
    assert list(same.values()) == [True, True, False, False]


def test_clients_and_server_measure_alike() -> None:
    data = _data()
    evaluation, node = ServerEvaluation(config(), data), ClientNode(config(), lambda: data)
    found = node.measure(_always(3), data.test, evaluation._measures)
    assert found == evaluation.scores(_always(3))["all"]
