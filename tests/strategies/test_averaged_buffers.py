"""BatchNorm's buffers are averaged, whatever the server optimizer does to parameters."""

from __future__ import annotations

import numpy as np
import pytest
from support.helpers import FirstWeight, config

from fedexp import strategies
from fedexp.core.roles import Update, Updates
from fedexp.core.weights import Weights, restore_dtypes
from fedexp.federation.servers import build_server
from fedexp.strategies import Strategy
from fedexp.strategies.fedadagrad import FedAdagrad
from fedexp.strategies.fedadam import FedAdam
from fedexp.strategies.fedavg import FedAvg
from fedexp.strategies.fedavgm import FedAvgM
from fedexp.strategies.fedcm import FedCm
from fedexp.strategies.feddyn import FedDyn
from fedexp.strategies.fedexp import FedExp
from fedexp.strategies.fednova import FedNova
from fedexp.strategies.fedprox import FedProx
from fedexp.strategies.fedyogi import FedYogi
from fedexp.strategies.pfedme import PFedMe
from fedexp.strategies.qfedavg import QFedAvg
from fedexp.strategies.scaffold import Scaffold

START: Weights = {
    "w": np.array([1.0], np.float32),
    "running_var": np.array([2.0], np.float32),
    "num_batches_tracked": np.array(10),
}
CHOSEN = [
    FedAvg(),
    FedProx(),
    FedAvgM(),
    FedAdagrad(),
    FedAdam(),
    FedYogi(),
    QFedAvg(q=1.0),
    Scaffold(server_learning_rate=0.5),
    FedNova(),
    FedCm(),
    FedDyn(),
    FedExp(),
    PFedMe(),
]


def _sent(client: int) -> Weights:
    return {
        "w": np.array([3.0 - 2.5 * client], np.float32),
        "running_var": np.array([4.0 * client], np.float32),
        "num_batches_tracked": np.array(13 + 6 * client),
    }


def _aggregate(strategy: Strategy) -> Weights:
    evaluation = FirstWeight(1.0)
    evaluation.buffers = frozenset({"running_var", "num_batches_tracked"})
    server = build_server(config(strategy=strategy), evaluation)
    updates = []
    for client, order in sorted(server.instruct(1, START, [0, 1]).items()):
        assert list(order.weights) == list(START)  # clients get it all
        arrays = {}
        if "control" in order.arrays:
            assert list(order.arrays["control"]) == ["w"]
            arrays["control"] = {"w": np.zeros(1, np.float32)}
        numbers = {"global-loss": 1.0 + client, "gradient-mass": 1.0}
        updates.append(Update(client, 1, _sent(client), 10 + 20 * client, 0.5, arrays, numbers))
    combined = server.combine(1, START, Updates(updates))
    assert server.loss(Updates(updates)) == 0.5
    return restore_dtypes(combined, START)


@pytest.mark.parametrize("chosen", CHOSEN, ids=lambda chosen: str(chosen.name))
def test_buffers_are_the_mean_weighted_by_examples(chosen: Strategy) -> None:
    found = _aggregate(chosen)
    assert list(found) == list(START)
    assert {name: array.dtype for name, array in found.items()} == {
        name: array.dtype for name, array in START.items()
    }
    assert all(isinstance(array, np.ndarray) for array in found.values())
    assert found["running_var"].tolist() == [3.0]  # (10 * 0 + 30 * 4) / 40
    assert found["num_batches_tracked"] == 18  # (10 * 13 + 30 * 19) / 40 = 17.5, rounded to even
    assert found["w"].tolist() != START["w"].tolist()


def test_these_are_all_that_average_buffers() -> None:
    apart = {page.name for page in strategies.REGISTRY.pages().values() if page.averages_buffers}
    assert apart == {chosen.name for chosen in CHOSEN} - {"fedavg", "fedprox"}
