"""Every strategy's aggregate against numbers worked out by hand, and the identities between them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from support.helpers import sent, setup, values, weights_of

from fedexp.config.training import TrainingConfig
from fedexp.core.roles import Updates
from fedexp.strategies import Strategy
from fedexp.strategies.bulyan import Bulyan
from fedexp.strategies.centralized import Centralized
from fedexp.strategies.fedadagrad import FedAdagrad
from fedexp.strategies.fedadam import FedAdam
from fedexp.strategies.fedavg import FedAvg
from fedexp.strategies.fedavgm import FedAvgM
from fedexp.strategies.fedmedian import FedMedian
from fedexp.strategies.fednova import FedNova
from fedexp.strategies.fedprox import FedProx
from fedexp.strategies.fedtrimmedavg import FedTrimmedAvg
from fedexp.strategies.fedyogi import FedYogi
from fedexp.strategies.krum import Krum
from fedexp.strategies.multikrum import MultiKrum
from fedexp.strategies.qfedavg import QFedAvg
from fedexp.strategies.scaffold import Scaffold

START = (1.0, 2.0)
TWO = [(3.0, 2.0, 10), (-1.0, 6.0, 30)]  # weights and examples; their weighted mean is (0, 5)


def _aggregate(
    strategy: Strategy,
    replies: list[tuple[float, float, int]],
    rounds: int = 1,
    training: TrainingConfig | None = None,
    **reported: list[float],
) -> list[float]:
    """Return the global weights after rounds in which clients send the same things each time."""
    server = strategy.server(setup(len(replies), training=training))
    model = weights_of(*START)
    for server_round in range(1, rounds + 1):
        orders = server.instruct(server_round, model, range(len(replies)))
        assert sorted(orders) == list(range(len(replies)))
        assert all(values(order.weights) == values(model) for order in orders.values())
        updates = [
            sent(
                client,
                *(first, second),
                num_examples=count,
                arrays={name: weights_of(0.0, 0.0) for name in orders[client].arrays},
                numbers={key.replace("_", "-"): given[client] for key, given in reported.items()},
            )
            for client, (first, second, count) in enumerate(replies)
        ]
        combined = server.combine(server_round, model, Updates(updates))
        model = {name: array.astype(np.float32) for name, array in combined.items()}
    return values(model)


def test_the_mean_that_the_others_start_from() -> None:
    assert _aggregate(FedAvg(), TWO) == [0.0, 5.0]


def test_fedprox_averages_as_fedavg_does() -> None:
    assert _aggregate(FedProx(proximal_mu=0.5), TWO) == [0.0, 5.0]


def test_fedavgm_by_hand() -> None:
    # Pseudo-gradients x - mean: round 1 (1, -3); x = (1, 2) - 0.5 (1, -3) = (0.5, 3.5).
    # Round 2 (0.5, -1.5), velocity 0.9 (1, -3) + (0.5, -1.5) = (1.4, -4.2); x = (-0.2, 5.6).
    strategy = FedAvgM(server_learning_rate=0.5, server_momentum=0.9)
    assert _aggregate(strategy, TWO, rounds=2) == pytest.approx([-0.2, 5.6])


def test_fedavgm_without_momentum_is_fedavg() -> None:
    plain = FedAvgM(server_learning_rate=1.0, server_momentum=0.0)
    assert _aggregate(plain, TWO, rounds=2) == _aggregate(FedAvg(), TWO, rounds=2)


def test_fedadam_by_hand() -> None:
    # Change d = (-1, 3); m = 0.1 d; v = 0.01 d^2. Flower corrects the bias with the exponent t + 1 = 2:
    # eta sqrt(1 - 0.99^2) / (1 - 0.9^2).
    rate = 0.1 * math.sqrt(1 - 0.99**2) / (1 - 0.9**2)
    expected = [1 - rate * 0.1 / (0.1 + 0.001), 2 + rate * 0.3 / (0.3 + 0.001)]
    assert _aggregate(FedAdam(eta=0.1), TWO) == pytest.approx(expected)


def test_fedyogi_by_hand() -> None:
    # From v = 0, Yogi's v - (1 - beta_2) d^2 sign(v - d^2) is Adam's 0.01 d^2; no bias correction.
    expected = [1 - 0.1 * 0.1 / (0.1 + 0.001), 2 + 0.1 * 0.3 / (0.3 + 0.001)]
    assert _aggregate(FedYogi(eta=0.1), TWO) == pytest.approx(expected)


def test_fedadagrad_by_hand() -> None:
    # v = d^2 = (1, 9); the step is eta d / (|d| + tau).
    expected = [1 - 0.1 / 1.001, 2 + 0.1 * 3 / 3.001]
    assert _aggregate(FedAdagrad(eta=0.1, tau=0.001), TWO) == pytest.approx(expected)


def test_qfedavg_by_hand() -> None:
    # L = 1 / 0.5 = 2, q = 1, losses 2 and 1. Gradients L (x - w_k): (-4, 0) and (4, -8).
    # Delta: loss * gradient: (-8, 0) + (4, -8) = (-4, -8).
    # h = q loss^0 |g|^2 + L loss = 16 + 4 and 80 + 2: 102. x - Delta / 102.
    strategy = QFedAvg(q=1.0, client_learning_rate=0.5)
    found = _aggregate(strategy, TWO, global_loss=[2.0, 1.0])
    assert found == pytest.approx([1 + 4 / 102, 2 + 8 / 102])


def test_qfedavg_follows_the_rate_of_the_round() -> None:
    # One client at 0 that is sent x = (1, 2) and has loss 1: with L = 1 / rate, |x|^2 = 5 and q = 1,
    # g = L x, h = L^2 |x|^2 + L, and x - g / h = x (1 - 1 / (L |x|^2 + 1)).
    training = TrainingConfig(learning_rate=0.5, learning_rate_decay=0.5)
    first = 1 - 1 / (2 * 5 + 1)
    second = 1 - 1 / (4 * 5 * first**2 + 1)
    found = _aggregate(
        QFedAvg(q=1.0), [(0.0, 0.0, 1)], rounds=2, training=training, global_loss=[1.0]
    )
    assert found == pytest.approx([first * second, 2 * first * second])


def test_qfedavg_with_q_0_is_the_uniform_mean() -> None:
    strategy = QFedAvg(q=0.0, client_learning_rate=0.5)
    assert _aggregate(strategy, TWO, global_loss=[2.0, 1.0]) == pytest.approx([1.0, 4.0])


THREE = [(3.0, 0.0, 1), (5.0, 9.0, 50), (-7.0, 2.0, 1)]


def test_fedmedian_of_odd_and_even_numbers() -> None:
    assert _aggregate(FedMedian(), THREE) == [3.0, 2.0]
    # (3 + 5) / 2 and (2 + 4) / 2, whatever the examples.
    assert _aggregate(FedMedian(), [*THREE, (6.0, 4.0, 9)]) == [4.0, 3.0]


def test_fedtrimmedavg_by_hand() -> None:
    five = [(9.0, 1.0, 1), (1.0, -50.0, 2), (2.0, 3.0, 3), (3.0, 2.0, 4), (-99.0, 99.0, 5)]
    # int(0.2 * 5) = 1 off either end: (1 + 2 + 3) / 3 and (1 + 2 + 3) / 3.
    assert _aggregate(FedTrimmedAvg(beta=0.2), five) == pytest.approx([2.0, 2.0])


def test_fedtrimmedavg_that_trims_nothing_is_the_plain_mean() -> None:
    assert _aggregate(FedTrimmedAvg(beta=0.0), THREE) == pytest.approx([1 / 3, 11 / 3])


LINE = [(0.0, 0.0, 1), (1.0, 0.0, 1), (2.5, 0.0, 1), (5.0, 0.0, 1), (100.0, 0.0, 1)]


def test_krum_by_hand() -> None:
    # n = 5, f = 1: squared distances to the two nearest. 0: 1 + 6.25; 1: 1 + 2.25; 2.5: 2.25 + 6.25 ...
    assert _aggregate(Krum(num_malicious=1), LINE) == [1.0, 0.0]


@pytest.mark.parametrize(
    "scale",
    [
        pytest.param(1.0, marks=pytest.mark.slow),
        pytest.param(2.0**-6, marks=pytest.mark.slow),
        2.0**-12,
    ],
)
def test_krum_tells_small_updates_of_a_large_model_apart(scale: float) -> None:
    # The same line beside weights of 1,024: its squared distances drown in a float32 of 2^20 and more.
    far = [(1024 + scale * x, 1024.0, count) for x, _, count in LINE]
    assert _aggregate(Krum(num_malicious=1), far) == [1024 + scale, 1024.0]
    seven = [(1024 + scale * x, 1024.0, 1) for x in (3, 1, 2, 0, 4, 5, 1000)]
    found = _aggregate(Bulyan(num_malicious=1), seven)
    assert found == pytest.approx([1024 + scale * 2, 1024.0], abs=scale / 100, rel=0)


def test_multikrum_by_hand() -> None:
    # Scores: 7.25, 3.25, 8.5, 22.25, more. The two best are 1 and 0, and weigh 1 : 3.
    heavier = [(0.0, 0.0, 3), *LINE[1:]]
    strategy = MultiKrum(num_malicious=1, num_selected=2)
    assert _aggregate(strategy, heavier) == [0.25, 0.0]


def test_bulyan_by_hand() -> None:
    # n = 7, f = 1. Krum, one by one, over its 4, 3, 2, 1, 1 nearest, takes 2, 3, 1, 4, 0. Their median
    # is 2, and the three nearest to it are 1, 2 and 3.
    seven = [(float(x), 0.0, 1) for x in (0, 1, 2, 3, 4, 5, 1000)]
    assert _aggregate(Bulyan(num_malicious=1), seven) == pytest.approx([2.0, 0.0])


@pytest.mark.slow
def test_bulyan_asks_krum_again_for_every_choice() -> None:
    # n = 11, f = 2. One by one, however its equal scores fall, Krum takes 1, 4, 6, 7, 17, 19 and another
    # that is no less than 7: median 7, nearest 7, 6 and 4. Its best seven at once are 4, 6, 7, 11, 13, 17
    # and 19: median 11, and the mean would be (11 + 13 + 7) / 3.
    line = [11, 1, 4, 25, 6, 17, 7, 0, 19, 23, 13]
    found = _aggregate(Bulyan(num_malicious=2), [(float(x), 0.0, 1) for x in line])
    assert found == pytest.approx([17 / 3, 0.0])


def test_fednova_by_hand() -> None:
    # Shares 1/4 and 3/4, masses 2 and 6: tau_eff = 0.5 + 4.5 = 5.
    # 5 (1/4 (2, 0) / 2 + 3/4 (-2, 4) / 6) = 5 (0.25 - 0.25, 0.5) = (0, 2.5).
    assert _aggregate(FedNova(), TWO, gradient_mass=[2.0, 6.0]) == pytest.approx([1.0, 4.5])


def test_fednova_with_equal_steps_is_fedavg() -> None:
    assert _aggregate(FedNova(), TWO, gradient_mass=[7.0, 7.0]) == pytest.approx([0.0, 5.0])


def test_scaffold_with_zero_control_variates_is_fedavg() -> None:
    assert _aggregate(Scaffold(), TWO, rounds=2) == _aggregate(FedAvg(), TWO, rounds=2)


def test_scaffolds_server_learning_rate_by_hand() -> None:
    # (1, 2) + 0.5 ((0, 5) - (1, 2))
    found = _aggregate(Scaffold(server_learning_rate=0.5), TWO)
    assert found == pytest.approx([0.5, 3.5])


def test_scaffolds_server_may_overshoot() -> None:
    # (1, 2) + 1.5 (-1, 3) = (-0.5, 6.5), and (-0.5, 6.5) + 1.5 (0.5, -1.5).
    found = _aggregate(Scaffold(server_learning_rate=1.5), TWO, rounds=2)
    assert found == pytest.approx([0.25, 4.25])


def test_centralized_is_one_node_with_everybodys_examples() -> None:
    server, model = Centralized().server(setup(4)), weights_of(1.0)
    ((client, order),) = server.instruct(2, model, [1, 3]).items()
    assert client == 1
    assert order.examples_of == (1, 3)
    assert order.weights is model
    assert (order.arrays, order.numbers) == ({}, {})
    # What it sends is the next model.
    one = Updates([sent(1, 4.0, num_examples=9, loss=0.25)])
    assert values(server.combine(2, model, one)) == [4.0]
    assert server.loss(one) == 0.25
    assert server.models(model) == {None: model}
