"""Every partition: disjoint, complete or its loss stated, reproducible, and what its name promises."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedexp.core.options import FedexpError
from fedexp.data.assignment import Assignment, apportion
from fedexp.partitions import Partition
from fedexp.partitions.base import MAX_DRAWS, make_partition
from fedexp.partitions.classes import Classes
from fedexp.partitions.dirichlet import Dirichlet
from fedexp.partitions.dirichlet_balanced import DirichletBalanced, _take
from fedexp.partitions.exclude import Exclude
from fedexp.partitions.feature_noise import FeatureNoise
from fedexp.partitions.iid import Iid
from fedexp.partitions.quantity import Quantity
from fedexp.partitions.shards import Shards

CLASSES = 5
LESSON = Exclude(seed=42, exclude=[[1, 3, 7], [2, 5, 8], [4, 6, 9]])
SEEDS = st.integers(0, 2**32 - 1)
CONFIGS = st.one_of(
    st.just(Iid()),
    st.just(FeatureNoise()),
    st.builds(Dirichlet, alpha=st.floats(0.3, 100), min_size=st.just(1)),
    st.builds(DirichletBalanced, alpha=st.floats(1e-3, 1e6)),
    st.builds(Shards, shards_per_client=st.integers(1, 4)),
    st.builds(Classes, classes_per_client=st.integers(1, CLASSES)),
    st.builds(Quantity, alpha=st.floats(0.5, 100), min_size=st.just(1)),
)


def _labels(count: int, seed: int = 0) -> npt.NDArray[np.int64]:
    """Return unequally many images of 0, 1, 2, 3 and 4."""
    shares = np.array([3, 2, 1, 2, 1]) / 9
    return np.random.default_rng(seed).choice(CLASSES, count, p=shares)


def _same(left: Assignment, right: Assignment) -> bool:
    return left.sha256 == right.sha256


@settings(deadline=None, max_examples=100)
@given(CONFIGS, st.integers(1, 12), st.integers(120, 300), SEEDS)
def test_nobody_shares_an_image_and_what_is_lost_is_stated(
    config: Partition, clients: int, count: int, seed: int
) -> None:
    labels = _labels(count)
    partition = make_partition(config, labels, clients, seed)
    held = np.sort(partition.indices)
    assert partition.num_clients == clients
    assert partition.sizes.min() >= 1
    assert len(np.unique(held)) == len(held)
    lost = np.setdiff1d(np.arange(count), held)
    if isinstance(config, Classes):
        # Only whole labels are lost, and only where there are fewer places than labels.
        places = clients * config.classes_per_client
        assert len(np.unique(labels[lost])) == max(0, CLASSES - places)
        assert not set(labels[lost]) & set(labels[held])
    else:
        assert len(lost) == 0
    assert _same(partition, make_partition(config, labels, clients, seed))


@pytest.mark.parametrize(
    "config",
    [
        Iid(),
        FeatureNoise(),
        Exclude(exclude=[[]] * 4),
        Dirichlet(),
        DirichletBalanced(),
        Shards(),
        Classes(),
        Quantity(),
    ],
    ids=lambda config: config.name,
)
def test_seeds_differ_and_the_partitions_own_wins(config: Any) -> None:
    labels = _labels(400)
    own = type(config)(**{**vars(config), "seed": 5})
    assert not _same(make_partition(config, labels, 4, 0), make_partition(config, labels, 4, 1))
    assert _same(make_partition(own, labels, 4, 0), make_partition(own, labels, 4, 1))
    if not isinstance(config, Exclude):
        assert _same(make_partition(own, labels, 4, 0), make_partition(config, labels, 4, 5))


@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from([Dirichlet, Quantity]),
    st.floats(1, 10),
    st.integers(1, 20),
    SEEDS,
)
def test_the_minimum_size_is_honoured(entry: Any, alpha: float, least: int, seed: int) -> None:
    partition = make_partition(entry(alpha=alpha, min_size=least), _labels(200), 4, seed)
    assert partition.sizes.min() >= least


def test_a_client_may_hold_exactly_the_minimum() -> None:
    partition = make_partition(Quantity(alpha=1e6, min_size=50), _labels(200), 4, 0)
    assert partition.sizes.tolist() == [50] * 4


@settings(deadline=None, max_examples=30)
@given(st.floats(1e-3, 1e6), st.integers(1, 30), SEEDS)
def test_balanced_sizes_differ_by_one_at_most(alpha: float, clients: int, seed: int) -> None:
    labels = _labels(200)
    partition = make_partition(DirichletBalanced(alpha=alpha), labels, clients, seed)
    assert partition.sizes.max() - partition.sizes.min() <= 1
    assert partition.sizes.sum() == 200


@settings(deadline=None, max_examples=30)
@given(st.integers(1, CLASSES), st.integers(1, 15), SEEDS)
def test_each_client_holds_exactly_k_labels_in_equal_shares(
    k: int, clients: int, seed: int
) -> None:
    labels = _labels(300)
    partition = make_partition(Classes(classes_per_client=k), labels, clients, seed)
    counts = partition.class_counts(labels, CLASSES)
    assert ((counts > 0).sum(axis=1) == k).all()
    for of_label in counts.T:
        shares = of_label[of_label > 0]
        assert shares.size == 0 or shares.max() - shares.min() <= 1


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 5), st.integers(1, 20), SEEDS)
def test_shards_are_runs_of_equal_length(shards: int, clients: int, seed: int) -> None:
    labels = np.repeat(np.arange(CLASSES), 40)
    config = Shards(shards_per_client=shards)
    partition = make_partition(config, labels, clients, seed)
    assert partition.sizes.max() - partition.sizes.min() <= shards
    # A cut between labels falls into one shard at most, so all shards hold few labels in all.
    held = (partition.class_counts(labels, CLASSES) > 0).sum()
    assert held <= clients * shards + CLASSES - 1


def test_two_shards_of_equal_labels_are_two_labels_at_most() -> None:
    # 10 labels of 20 images, 20 shards of 10: a shard never holds two labels.
    labels = np.repeat(np.arange(10), 20)
    partition = make_partition(Shards(), labels, 10, 0)
    counts = partition.class_counts(labels, 10)
    assert set(np.unique(counts)) <= {0, 10, 20}
    assert (partition.sizes == 20).all()


def test_a_small_alpha_skews_and_a_large_one_does_not() -> None:
    labels = np.repeat(np.arange(10), 100)
    for entry in (Dirichlet, DirichletBalanced):
        even = make_partition(entry(alpha=1e6), labels, 5, 0).class_counts(labels, 10)
        assert even.min() >= 19  # of 20 each
        assert even.max() <= 21
        skewed = make_partition(entry(alpha=0.05), labels, 5, 0).class_counts(labels, 10)
        assert (skewed == 0).sum() > 10
    sizes = make_partition(Quantity(alpha=1e6), labels, 5, 0).sizes
    assert sizes.max() - sizes.min() <= 2


def test_quantity_does_not_skew_labels() -> None:
    labels = np.repeat(np.arange(2), 5_000)
    partition = make_partition(Quantity(min_size=500), labels, 5, 0)
    counts = partition.class_counts(labels, 2)
    # Half of n drawn images, give or take four standard deviations of sqrt(n) / 2.
    assert (np.abs(counts[:, 0] - partition.sizes / 2) <= 2 * np.sqrt(partition.sizes)).all()
    assert partition.sizes.max() > 2 * partition.sizes.min()


def test_feature_noise_holds_what_iid_holds() -> None:
    noisy, plain = (
        make_partition(config, _labels(100), 4, 3) for config in (FeatureNoise(), Iid())
    )
    assert _same(noisy, plain)


# Written down on purpose: another hash is another partition, on this machine or with this NumPy.
GOLDEN: list[tuple[Partition, str]] = [
    (Iid(), "5a96144da665af2ab3a2a8dc107471849da6b2b91afa026934fd9802979d8e8f"),
    (Dirichlet(), "1448f61865b72cbf4a364e67da4697c4a75fd19b1c1a5a2fd8ca222ce0f71390"),
    (
        DirichletBalanced(),
        "06bb90c78a2ac5a86af8c3898f7c76060190e8f2774b80c04c6ddee2a0a36507",
    ),
    (Shards(), "d7310065aa0da26c82a7eefdd27357a7450e294e924f6ee00ca8870840484452"),
    (Classes(), "b6494f89280e513fbe11eb735c020e29a44d95b65e199c82ec559aa43a548069"),
    (Quantity(), "4300273e07dd95e5d5b9f48e6ac8d7e65251376ccbdadcd54e48cc997c3beb16"),
    (LESSON, "7172186a166020f84182afcd4e221543e990e1b4dbef8a1ed900903dfbdd73a2"),
]


@pytest.mark.parametrize(("config", "expected"), GOLDEN, ids=[c.name for c, _ in GOLDEN])
def test_hashes_never_change(config: Partition, expected: str) -> None:
    labels = np.arange(1_000) * 7 % 10  # a hundred of each digit
    clients = 3 if config is LESSON else 5
    assert make_partition(config, labels, clients, 0).sha256 == expected


@pytest.mark.parametrize(
    ("config", "clients", "message"),
    [
        (
            Dirichlet(alpha=0.01, min_size=40),
            5,
            r"partition=dirichlet at partition\.alpha=0\.01 and clients\.num=5: none of 1,000 draws "
            r"gave every client partition\.min_size=40 examples \(at best the smallest had \d+\)",
        ),
        (Quantity(alpha=0.01, min_size=40), 5, r"partition=quantity at .*: none of 1,000 draws"),
        (Dirichlet(min_size=41), 5, "larger alpha, a smaller min_size or fewer clients"),
        (Classes(classes_per_client=6), 2, "must be <= 5, the labels that have examples"),
        (Classes(classes_per_client=5), 90, r"90 clients hold label \d, which has \d+ ex"),
        (Shards(shards_per_client=1), 201, "leaves 1 of 201 clients without an example"),
        (DirichletBalanced(), 201, "leaves 1 of 201 clients without an example"),
    ],
)
def test_what_is_impossible_is_said(config: Partition, clients: int, message: str) -> None:
    with pytest.raises(FedexpError, match=message):
        make_partition(config, _labels(200), clients, 0)


def test_the_number_of_draws_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    draws: list[int] = []

    def count(total: int, weights: Any) -> npt.NDArray[np.int64]:
        draws.append(total)
        return apportion(total, weights)

    monkeypatch.setattr("fedexp.partitions.quantity.apportion", count)
    with pytest.raises(FedexpError):
        make_partition(Quantity(min_size=101), _labels(200), 2, 0)
    assert draws == [200] * MAX_DRAWS


def test_what_a_label_lacks_comes_from_the_others_by_hand() -> None:
    mix = np.array([0.5, 0.5, 0.0])
    # 4 and 4 wanted, 1 of the first left: its 3 more come from the second.
    assert _take(8, mix, np.array([1, 20, 20])).tolist() == [1, 7, 0]
    # Nothing of the mix is left: in proportion to what there is.
    assert _take(4, mix, np.array([0, 1, 20])).tolist() == [0, 1, 3]
