"""Intervals, tests and fairness against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest

from fedexp.core.statistics import (
    detectable_difference,
    difference,
    effect_size,
    fairness,
    half_interval,
    holm,
    paired_p_value,
    rank,
    wilcoxon_p_value,
)


def test_fairness_by_hand() -> None:
    found = fairness([0.5, 0.9, 0.7, 0.6, 0.8, 1.0, 1.0, 1.0, 1.0, 1.0, 0.4])
    # The worst tenth of eleven clients are two: (0.4 + 0.5) / 2.
    mean = 8.9 / 11
    squares = [0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1, 1, 1, 1]
    std = math.sqrt(sum((value - mean) ** 2 for value in squares) / 11)
    assert found == pytest.approx({"mean": mean, "std": std, "min": 0.4, "worst10": 0.45})
    assert math.isnan(fairness([])["mean"])


def test_the_interval_of_a_mean_by_hand() -> None:
    # Mean 2, standard deviation 1; the t of two degrees of freedom is 4.302653 at 97.5 %.
    assert half_interval([1.0, 2.0, 3.0]) == pytest.approx(4.302653 / math.sqrt(3), abs=1e-6)
    assert math.isnan(half_interval([1.0, 2.0]))  # t would be 12.7


def test_the_paired_test_by_hand() -> None:
    # Mean 2, error 1 / sqrt(3): t = 2 sqrt(3). With two degrees of freedom the two-sided p-value is
    # 1 - t / sqrt(t^2 + 2) = 1 - sqrt(12 / 14).
    assert paired_p_value([1.0, 2.0, 3.0]) == pytest.approx(1 - math.sqrt(12 / 14))
    assert paired_p_value([-1.0, -2.0, -3.0]) == pytest.approx(1 - math.sqrt(12 / 14))
    assert math.isnan(paired_p_value([1.0, 2.0]))


def test_differences_without_spread() -> None:
    assert paired_p_value([0.0, 0.0, 0.0]) == 1.0
    assert paired_p_value([0.5, 0.5, 0.5]) == 0.0


def test_holm_by_hand() -> None:
    # Sorted: 0.01 * 3, 0.02 * 2 = 0.04, 0.03 * 1, which must not fall below 0.04.
    assert holm([0.03, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.9, 0.8]) == [1.0, 1.0]  # 1.6 and then 0.9, held at 1
    assert holm([]) == []
    found = holm([0.01, math.nan, 0.02])
    assert found[0] == pytest.approx(0.02)
    assert math.isnan(found[1])
    assert found[2] == pytest.approx(0.02)


def test_what_cannot_be_estimated_is_nan() -> None:
    assert math.isnan(wilcoxon_p_value([1.0, 2.0, 3.0, 4.0, 5.0]))  # at best 0.0625
    assert wilcoxon_p_value([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) == pytest.approx(2 / 2**6)
    assert wilcoxon_p_value([0.0] * 6) == 1.0
    assert all(math.isnan(number) for number in effect_size([0.5, 0.5, 0.5]))
    assert all(math.isnan(number) for number in effect_size([0.5, 0.25]))
    assert math.isnan(detectable_difference([0.5, 0.25]))
    assert detectable_difference([0.5, 0.5, 0.5]) == 0.0


def test_ranks_by_hand() -> None:
    # Ranks 1 2 3, 1 2 3, 1.5 1.5 3.
    scores = [[0.9, 0.8, 0.1], [0.5, 0.4, 0.3], [0.7, 0.7, 0.2]]
    assert rank(scores).ranks == pytest.approx([3.5 / 3, 5.5 / 3, 3.0])
    two = rank(scores[:2])
    assert two.ranks == [1.0, 2.0, 3.0]
    assert math.isnan(two.p_value)
    assert rank([[0.5] * 3] * 3).p_value == 1.0


def test_floating_point_is_no_spread_over_seeds() -> None:
    pairs = [(0.537, 0.501), (0.436, 0.4), (0.641, 0.605)]
    assert len({first - second for first, second in pairs}) > 1
    differences = [difference(first, second) for first, second in pairs]
    assert differences == [0.036] * 3
    assert math.isnan(effect_size(differences).size)  # 1e14 before
    assert difference(1e-9, 3e-9) == pytest.approx(-2e-9)
    assert difference(1e9 + 1, 1e9) == 1.0
    assert difference(0.0, 0.0) == 0.0
    assert math.isnan(difference(math.nan, 1.0))
    assert difference(math.inf, 1.0) == math.inf
