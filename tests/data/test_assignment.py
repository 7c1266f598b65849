from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from fedexp.data.partition import test_subsets
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import random_split

from fedexp.core.options import FedexpError
from fedexp.data.loading import load_dataset
from fedexp.data.matched_test import match_test
from fedexp.datasets import Dataset
from fedexp.partitions import Partition
from fedexp.partitions.base import make_partition
from fedexp.partitions.exclude import Exclude, torch_random_permutation
from fedexp.partitions.iid import Iid

LESSON = Exclude(seed=42, exclude=[[1, 3, 7], [2, 5, 8], [4, 6, 9]])
test_subsets.__test__ = False  # type: ignore[attr-defined]  # a name that pytest would collect


def _labels(count: int, classes: int = 10, seed: int = 0) -> npt.NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, classes, count)


@pytest.mark.parametrize("num_items", [1, 2, 17, 4_000, 60_000])
@pytest.mark.parametrize("seed", [0, 42, 2**32 - 1])
def test_permutation_is_torchs(num_items: int, seed: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        expected = torch.randperm(num_items).tolist()
    assert torch_random_permutation(num_items, seed).tolist() == expected


def test_the_lesson_splits_as_random_split_does() -> None:
    labels = _labels(600)
    partition = make_partition(LESSON, labels, 3, seed=0)
    generator = torch.Generator().manual_seed(42)
    parts: Any = random_split(range(600), [200, 200, 200], generator)  # type: ignore[arg-type]
    for client, part in enumerate(parts):
        kept = [i for i in part.indices if labels[i] not in LESSON.exclude[client]]
        assert partition.client(client).tolist() == kept


def test_the_lesson_has_the_published_sizes(mnist_root: Path) -> None:
    train, test = load_dataset(Dataset("mnist", str(mnist_root)))
    partition = make_partition(LESSON, train.labels, 3, seed=0)
    assert partition.sizes.tolist() == [13_729, 14_284, 14_185]
    # An isolated client cannot exceed the share of test digits that it has seen.
    shares = [1 - np.isin(test.labels, labels).mean() for labels in LESSON.exclude]
    assert [round(float(share), 3) for share in shares] == [0.683, 0.71, 0.705]


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 30), st.integers(30, 400), st.integers(0, 2**32 - 1))
def test_iid_deals_every_image_once(clients: int, count: int, seed: int) -> None:
    partition = make_partition(Iid(), _labels(count), clients, seed)
    assert sorted(partition.indices.tolist()) == list(range(count))
    assert partition.sizes.max() - partition.sizes.min() <= 1
    assert partition.sha256 == make_partition(Iid(), _labels(count), clients, seed).sha256


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.lists(st.integers(0, 9), max_size=4), min_size=1, max_size=8),
    st.integers(0, 2**32 - 1),
)
def test_exclude_loses_the_named_labels_and_no_other(lists: list[list[int]], seed: int) -> None:
    labels = _labels(300)
    partition = make_partition(Exclude(exclude=lists, seed=seed), labels, len(lists), 0)
    assert len(set(partition.indices.tolist())) == len(partition.indices)
    everyone = make_partition(Exclude(exclude=[[]] * len(lists), seed=seed), labels, len(lists), 0)
    for client, excluded in enumerate(lists):
        whole = everyone.client(client)
        assert partition.client(client).tolist() == [i for i in whole if labels[i] not in excluded]


def test_a_client_without_an_image_is_refused() -> None:
    nothing_left = Exclude(seed=0, exclude=[[], [3]])
    with pytest.raises(FedexpError, match=r"leaves 1 of 2 clients without an image.*client 1"):
        make_partition(nothing_left, np.full(10, 3), 2, seed=0)


def test_samples_per_client() -> None:
    partition = make_partition(Iid(samples_per_client=7), _labels(100), 5, seed=1)
    assert partition.sizes.tolist() == [7] * 5
    assert len(set(partition.indices.tolist())) == 35


def test_the_partitions_own_seed_wins() -> None:
    labels = _labels(100)

    def hash_of(own: int | None, seed: int) -> str:
        return make_partition(Iid(seed=own), labels, 4, seed).sha256

    assert hash_of(None, 0) != hash_of(None, 1)
    assert hash_of(5, 0) == hash_of(5, 1) == hash_of(None, 5)


def test_class_counts_by_hand() -> None:
    labels = np.array([0, 1, 1, 2, 0])
    partition = Partition.of([np.array([0, 1, 2]), np.array([4, 3])])
    assert partition.class_counts(labels, 3).tolist() == [[1, 2, 0], [1, 0, 1]]


def test_the_hash_says_who_holds_what() -> None:
    parts = [np.array([0, 1]), np.array([2])]
    assert Partition.of(parts).sha256 == Partition.of(parts).sha256
    moved = Partition.of([np.array([0]), np.array([1, 2])])
    assert moved.sha256 != Partition.of(parts).sha256


def test_test_shares_follow_the_training_labels() -> None:
    # Client 0 holds 3 of 4 zeros and no one, client 1 the fourth zero and both ones.
    train_labels = np.array([0, 0, 0, 0, 1, 1])
    train = Partition.of([np.array([0, 1, 2]), np.array([3, 4, 5])])
    test_labels = np.array([0] * 8 + [1] * 4 + [2] * 3)
    shares = match_test(train, train_labels, test_labels, 3, seed=0)
    # 8 zeros: 6 and 2; 4 ones: 0 and 4; nobody trains on twos, so nobody is tested on them.
    assert shares.class_counts(test_labels, 3).tolist() == [[6, 0, 0], [2, 4, 0]]
    assert len(set(shares.indices.tolist())) == 12
    for client in range(2):
        assert (np.diff(shares.client(client)) > 0).all(), "in the dataset's order"
    again, other = (match_test(train, train_labels, test_labels, 3, seed) for seed in (0, 2))
    assert again.sha256 == shares.sha256 != other.sha256


def test_largest_remainders_deal_every_test_image() -> None:
    train_labels = np.zeros(7, dtype=np.int64)
    train = Partition.of([np.arange(3), np.arange(3, 5), np.arange(5, 7)])
    shares = match_test(train, train_labels, np.zeros(10, dtype=np.int64), 1, seed=0)
    # 10 images for 3 + 2 + 2: exactly 4.29, 2.86, 2.86.
    assert shares.sizes.tolist() == [4, 3, 3]


def test_no_client_gets_more_test_images_because_it_comes_first() -> None:
    # 400 clients of one image of each of 10 labels, 100 test images of each: one in four gets one.
    train_labels = np.tile(np.arange(10), 400)
    train = Partition.of(list(np.arange(4_000).reshape(400, 10)))
    sizes = match_test(train, train_labels, np.repeat(np.arange(10), 100), 10, seed=0).sizes
    # 250 a quarter of the clients, give or take five standard deviations of about 12.
    quarters = sizes.reshape(4, 100).sum(axis=1)
    assert quarters.sum() == 1_000
    assert (np.abs(quarters - 250) < 60).all()


def test_subsets_are_named_by_their_labels() -> None:
    assert test_subsets(LESSON) == {"1-3-7": [1, 3, 7], "2-5-8": [2, 5, 8], "4-6-9": [4, 6, 9]}
    assert test_subsets(Exclude(exclude=[[], [9, 2], [2, 9]])) == {"2-9": [2, 9]}
    assert test_subsets(Iid()) == {}
