from __future__ import annotations

import tracemalloc

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from support.helpers import config

from fedexp.config.clients import ClientsConfig
from fedexp.federation.cohort import draw_cohort
from fedexp.strategies.local_only import LocalOnly


@settings(deadline=None)
@given(
    num=st.integers(1, 300),
    fraction=st.floats(0.001, 1),
    seed=st.integers(0, 2**32),
    server_round=st.integers(1, 1000),
)
def test_a_cohort_is_sorted_distinct_and_of_the_right_size(
    num: int, fraction: float, seed: int, server_round: int
) -> None:
    experiment = config(seed=seed, clients=ClientsConfig(num=num))
    cohort = draw_cohort(experiment, "cohort", fraction, server_round)
    assert cohort == sorted(set(cohort))
    assert set(cohort) <= set(range(num))
    assert len(cohort) == max(1, round(fraction * num))
    other = config(seed=seed, clients=ClientsConfig(num=num), strategy=LocalOnly())
    assert draw_cohort(other, "cohort", fraction, server_round) == cohort


def test_a_cohort_is_the_draw_of_seed_purpose_and_round() -> None:
    experiment = config(seed=5, clients=ClientsConfig(num=100))
    for purpose, number in (("cohort", 2), ("evaluate_cohort", 3)):
        state = np.random.SeedSequence((5, number, 7, 0)).generate_state(1, np.uint64)[0]
        rng = np.random.Generator(np.random.PCG64(int(state >> np.uint64(1))))
        expected = sorted(rng.choice(100, 10, replace=False).tolist())
        assert draw_cohort(experiment, purpose, 0.1, 7) == expected  # type: ignore[arg-type]


def test_cohorts_differ_between_rounds_seeds_and_purposes() -> None:
    one, two = (config(seed=seed, clients=ClientsConfig(num=100)) for seed in (1, 2))
    draws = [
        draw_cohort(one, "cohort", 0.1, 1),
        draw_cohort(one, "cohort", 0.1, 2),
        draw_cohort(two, "cohort", 0.1, 1),
        draw_cohort(one, "evaluate_cohort", 0.1, 1),
    ]
    assert len({tuple(draw) for draw in draws}) == 4


def test_everyone_takes_part_at_fraction_1_and_someone_at_any() -> None:
    experiment = config(clients=ClientsConfig(num=7))
    assert draw_cohort(experiment, "cohort", 1.0, 1) == [0, 1, 2, 3, 4, 5, 6]
    assert len(draw_cohort(experiment, "cohort", 0.001, 1)) == 1


def test_a_cohort_of_a_hundred_million_clients_takes_memory_of_the_cohort_only() -> None:
    peaks = []
    for num in (100_000, 100_000_000):
        experiment = config(clients=ClientsConfig(num=num))
        tracemalloc.start()
        try:
            cohort = draw_cohort(experiment, "cohort", 1_000 / num, 1)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        assert len(set(cohort)) == 1_000
        assert max(cohort) < num
    small, large = peaks
    assert large < 1.5 * small
    assert large < 1_000_000  # bytes; a number for every client would take 8e8
