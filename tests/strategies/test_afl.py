"""AFL: shares of clients that move along their losses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize
from support.helpers import initial_weights
from support.transcribed import Holder, Net, holders, mean

from fedexp.config.clients import ClientsConfig
from fedexp.config.schema import Config
from fedexp.config.training import TrainingConfig
from fedexp.core.roles import Update, Updates
from fedexp.core.weights import Weights
from fedexp.models.mlp import Mlp
from fedexp.partitions.dirichlet import Dirichlet
from fedexp.strategies.afl import Afl, AflServer, projected
from fedexp.testing.runs import run, small

RATE, STEPS, ROUNDS = 0.05, 3, 4


def _experiment(strategy: Afl) -> Config:
    training = TrainingConfig(local_steps=STEPS, batch_size="full", learning_rate=RATE, momentum=0)
    clients = ClientsConfig(num=3)
    return small(
        strategy=strategy, rounds=ROUNDS, clients=clients, training=training,
        partition=Dirichlet(alpha=1.0), model=Mlp(hidden=[6]),
    )  # fmt: skip


def _transcribed(clients: list[Holder], net: Net, rate: float) -> tuple[Net, list[float]]:
    """Return the model, and the shares that its last round ended with."""
    shares = np.full(len(clients), 1 / len(clients))
    for _ in range(ROUNDS):
        losses = np.array([c.loss(net) for c in clients])
        net = mean([c.sgd(net, RATE, STEPS) for c in clients], shares.tolist())
        shares = _nearest(shares + rate * losses)
    return net, shares.tolist()


def _nearest(point: Any) -> Any:
    """Return the nearest point of the simplex, by a solver that knows nothing of sorting."""
    found = minimize(
        lambda x: ((x - point) ** 2).sum(),
        np.full(len(point), 1 / len(point)),
        bounds=[(0, None)] * len(point),
        constraints={"type": "eq", "fun": lambda x: x.sum() - 1},
        options={"ftol": 1e-15, "maxiter": 1000},
    )
    return found.x


@pytest.mark.parametrize("rate", [0.0, 0.5, 3.0])
def test_rounds_are_the_papers_algorithm(rate: float) -> None:
    config = _experiment(Afl(share_learning_rate=rate))
    found = run(config)[0].weights
    assert found is not None
    start = {n: a.astype(np.float64) for n, a in initial_weights(config).items()}
    clients = holders(config)
    wanted, shares = _transcribed(clients, start, rate)
    assert (
        len({len(client.labels) for client in clients}) == 3
    )  # else a mean by examples is the same
    assert (max(shares) - min(shares) > 0.05) == (rate > 0)
    for name, array in found.items():
        np.testing.assert_allclose(array, wanted[name], atol=1e-4, err_msg=name)


@pytest.mark.parametrize(
    ("shares", "nearest"),
    [
        ([0.2, 0.3, 0.5], [0.2, 0.3, 0.5]),
        ([0.5, 0.5, 0.5], [1 / 3, 1 / 3, 1 / 3]),
        ([1.5, 0.5, 0.1], [1.0, 0.0, 0.0]),
        ([0.9, 0.7, -0.4], [0.6, 0.4, 0.0]),
        ([7.0], [1.0]),
        ([1e17, 0.5, 1e17], [0.5, 0.0, 0.5]),
    ],
)
def test_the_nearest_shares(shares: list[float], nearest: list[float]) -> None:
    np.testing.assert_allclose(projected(np.array(shares)), nearest, atol=1e-12)


def test_the_nearest_shares_are_those_that_a_solver_finds() -> None:
    draws = np.random.default_rng(0)
    for size in range(1, 9):
        point = draws.normal(size=size)
        np.testing.assert_allclose(projected(point), _nearest(point), atol=1e-5)


def _update(client: int, value: float, loss: float) -> Update:
    weights: Weights = {"w": np.full(2, value, np.float32)}
    return Update(client, 1, weights, 10, 0.0, numbers={"global-loss": loss})


def test_who_is_absent_keeps_waiting_and_who_has_no_share_moves_nothing() -> None:
    server = AflServer(3, 1.0)
    model: Weights = {"w": np.zeros(2, np.float32)}
    moved = server.combine(1, model, Updates([_update(0, 2.0, 0.0), _update(2, 4.0, 3.0)]))
    np.testing.assert_array_equal(moved["w"], np.full(2, 3.0, np.float32))
    assert server.shares.tolist() == [0.0, 0.0, 1.0]
    assert server.combine(2, model, Updates([_update(1, 2.0, 0.5)])) is model
    np.testing.assert_allclose(server.shares, [0.0, 0.25, 0.75])


def test_a_share_for_each_of_very_many_clients_is_refused() -> None:
    from fedexp.config.composition import compose_config
    from fedexp.core.options import ConfigError

    many = ["partition=resample", "clients.num=2000000", "clients.fraction_train=0.00001"]
    with pytest.raises(ConfigError) as found:
        compose_config(["strategy=afl", *many])
    assert [line for line in found.value.errors if "strategy=afl" in line and "2000000" in line]
