"""``partition=resample``: clients are functions of their number, however many there are."""

from __future__ import annotations

import pickle
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.helpers import config
from support.populations import MANY, REFUSED

from fedexp.config.clients import ClientsConfig
from fedexp.config.populations import population_errors
from fedexp.config.schema import Config
from fedexp.data.assignment import Indices
from fedexp.federation.dealing import describe_partition, federate
from fedexp.partitions.resample import Drawn, Resample
from fedexp.strategies.local_only import LocalOnly
from fedexp.testing.tiny import TinyImages, TinyNumbers, TinyText

LABELS = np.random.default_rng(0).choice(5, 300, p=np.array([3, 2, 1, 2, 1]) / 9)
SEEDS = st.integers(0, 2**32 - 1)
PAGES = st.builds(
    Resample,
    samples_per_client=st.integers(1, 90),
    alpha=st.none() | st.floats(1e-3, 1e6),
    panel=st.integers(1, 20),
)


@settings(deadline=None, max_examples=60)
@given(PAGES, SEEDS, st.integers(1, MANY), st.data())
def test_what_a_client_holds_follows_from_its_number(
    page: Resample, seed: int, clients: int, data: Any
) -> None:
    held = page.hold(LABELS, clients, seed)
    assert held.num_clients == clients
    assert len(held.listed) == page.num_listed(clients) == min(clients, page.panel)
    assert list(held.listed) == sorted({*held.listed})
    assert 0 <= held.listed[0] <= held.listed[-1] < clients
    client = data.draw(st.integers(0, clients - 1))
    own = held.client(client)
    assert own.dtype == np.int64
    assert len(own) == held.size(client) == page.samples_per_client
    assert 0 <= own.min() <= own.max() < len(LABELS)
    assert held.sizes.tolist() == [page.samples_per_client] * len(held.listed)
    for again in (page.hold(LABELS, clients, seed), pickle.loads(pickle.dumps(held))):
        assert np.array_equal(again.client(client), own)
        assert (again.sha256, list(again.listed)) == (held.sha256, list(held.listed))
    more = page.hold(LABELS, clients + 1, seed)
    assert np.array_equal(more.client(client), own), "nobody else makes a difference"
    assert more.sha256 != held.sha256


@settings(deadline=None, max_examples=60)
@given(PAGES, SEEDS, st.integers(0, MANY - 1))
def test_test_examples_have_the_labels_of_the_clients_own_mix(
    page: Resample, seed: int, client: int
) -> None:
    held, test_labels = page.hold(LABELS, MANY, seed), np.sort(LABELS)[::-1].copy()[:200]
    tested = page.hold_test(held, LABELS, test_labels, 5, seed)
    own = tested.client(client)
    assert tested.num_clients == MANY
    assert list(tested.listed) == list(held.listed)
    assert len(own) == tested.size(client)
    assert len(own) in (0, max(1, round(page.samples_per_client * 200 / 300)))
    assert len(own) or page.alpha is not None
    if page.alpha is not None and page.alpha < 0.01 and len(own):
        # Nearly all of a client's examples have one label, of which there may be test examples.
        (first, *_), (second, *_) = (
            np.bincount(labels).argsort()[::-1]
            for labels in (LABELS[held.client(client)], test_labels[own])
        )
        assert first == second or first not in test_labels


def test_no_mix_draws_every_example_alike_and_a_mix_is_dirichlets() -> None:
    def shares(alpha: float | None) -> Any:
        held = Resample(samples_per_client=90, alpha=alpha, panel=2_000).hold(LABELS, MANY, 0)
        return held.class_counts(LABELS, 5) / 90

    prior, spread = np.bincount(LABELS) / len(LABELS), {}
    for alpha in (None, 100.0, 0.2):
        found = shares(alpha)
        assert np.allclose(found.mean(axis=0), prior, atol=0.03)
        spread[alpha] = found.var(axis=0).sum()
    concentration = 0.2 * 5
    expected = (prior * (1 - prior)).sum() * (1 / (1 + concentration))
    assert spread[0.2] == pytest.approx(expected, rel=0.1)
    assert spread[None] < spread[100.0] < 0.1 * spread[0.2]
    drawn = np.bincount(np.concatenate(_draws(Resample().hold(LABELS, MANY, 0), 2_000)))
    assert abs(drawn / drawn.mean() - 1).max() < 0.3, "about 400 times each"


def _draws(held: Any, clients: int) -> list[Indices]:
    return [held.client(client) for client in range(clients)]


def test_own_seeds_decide_who_holds_what() -> None:
    def drawn(seed: int, own: int | None = None) -> list[int]:
        held = Resample(seed=own).hold(LABELS, MANY, seed)
        return [*held.listed[:5], *held.client(7).tolist()]

    assert drawn(0) != drawn(1)
    assert drawn(0, own=4) == drawn(1, own=4) == drawn(4)


def test_draws_are_those_of_every_other_version() -> None:
    page = Resample(samples_per_client=4, alpha=0.5, panel=3)
    held = page.hold(LABELS, MANY, 0)
    assert held.client(99_999_999).tolist() == EXPECTED[0]
    assert page.hold_test(held, LABELS, LABELS, 5, 0).client(5).tolist() == EXPECTED[1]
    assert list(held.listed) == EXPECTED[2]
    assert Resample(samples_per_client=4).hold(LABELS, MANY, 0).client(3).tolist() == EXPECTED[3]


EXPECTED = [
    [124, 99, 108, 261],
    [164, 223, 211, 268],
    [34790348, 56698415, 71250699],
    [189, 164, 108, 181],
]


def _plan(**changes: Any) -> Any:
    given = {"partition": Resample(samples_per_client=10, panel=5), "dataset": TinyImages()}
    clients = changes.pop("clients", ClientsConfig(MANY, fraction_train=1e-7))
    return config(**{**given, "clients": clients, **changes})


def _refusals(plan: Config) -> list[str]:
    return [*population_errors(plan), *plan.partition.errors(plan)]


def test_nothing_of_the_size_of_the_population_is_made() -> None:
    def described(clients: int) -> tuple[dict[str, Any], int]:
        federate(_plan(clients=ClientsConfig(1000, fraction_train=0.01)))  # the data are there
        tracemalloc.start()
        plan = _plan(clients=ClientsConfig(clients, fraction_train=10 / clients))
        told = describe_partition(plan, federate(plan))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return told, peak

    (few, small), (many, large) = described(1_000), described(MANY)
    assert large < small + 100_000
    assert few.keys() == many.keys()
    assert many["num_clients"] == MANY
    assert len(many["clients"]) == len(many["num_examples"]) == len(many["class_counts"]) == 5
    assert many["drawn"] == {"samples_per_client": 10, "dirichlet": None, "seed": 0}
    assert many["num_unassigned"] is None
    assert [sum(row) for row in many["class_counts"]] == [10] * 5


def test_the_server_may_hold_examples_out_that_nobody_draws() -> None:
    plan = _plan(dataset=TinyImages(validation=0.25))
    assert _refusals(plan) == []
    data = federate(plan)
    assert len(data.server_val)
    (pool,) = data.partition.pooled()
    assert not {*pool.tolist()} & {*data.server_val.tolist()}
    drawn = np.concatenate(_draws(data.partition, 50))
    assert {*drawn.tolist()} <= {*pool.tolist()}
    told = describe_partition(plan, data)
    assert told["num_validation_examples"] == [0] * 5


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"partition": Resample(samples_per_client=100_000)}, "partition.samples_per_client"),
        ({"partition": Resample(samples_per_client=1, alpha=1.0), "dataset": TinyText()}, "alpha"),
        ({"dataset": TinyImages(validation=0.2, validation_by="clients")}, "validation_by"),
        *REFUSED,
    ],
)
def test_what_grows_with_the_population_is_refused(changes: dict[str, Any], named: str) -> None:
    (line,) = _refusals(_plan(**changes))
    assert named in line


def test_a_mix_of_numbers_goes_by_tenths_of_targets() -> None:
    plan = _plan(dataset=TinyNumbers(), partition=Resample(samples_per_client=5, alpha=0.1))
    data = federate(plan)
    assert len(data.partition.client(MANY - 1)) == 5


def test_few_clients_are_all_listed_and_may_train_alone() -> None:
    clients = ClientsConfig(5, fraction_train=1.0, unseen=0.2)
    plan = _plan(clients=clients, strategy=LocalOnly())
    assert _refusals(plan) == []
    told = describe_partition(plan, federate(plan))
    assert "clients" not in told
    assert len(told["num_examples"]) == 5
    drawn = np.concatenate(_draws(federate(plan).partition, 5))
    assert told["num_unassigned"] == 400 - len({*drawn.tolist()})


def test_what_is_drawn_is_a_small_thing_to_send() -> None:
    held = Resample().hold(LABELS, MANY, 0)
    assert isinstance(held, Drawn)
    assert len(pickle.dumps(held)) < 20 * len(LABELS)
