from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import random_split

from fedexp.core.options import FedexpError
from fedexp.data.loading import load
from fedexp.datasets.mnist import Mnist
from fedexp.partitions.base import make_partition
from fedexp.partitions.exclude import Exclude, torch_random_permutation
from fedexp.partitions.iid import Iid

LESSON = Exclude(seed=42, exclude=[[1, 3, 7], [2, 5, 8], [4, 6, 9]])


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
    train, test = load(Mnist(root=str(mnist_root)))
    partition = make_partition(LESSON, train.targets, 3, seed=0)
    assert partition.sizes.tolist() == [13_729, 14_284, 14_185]
    # An isolated client cannot exceed the share of test digits that it has seen.
    shares = [1 - np.isin(test.targets, labels).mean() for labels in LESSON.exclude]
    assert [round(float(share), 3) for share in shares] == [0.683, 0.71, 0.705]


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
    with pytest.raises(FedexpError, match=r"leaves 1 of 2 clients without an example.*client 1"):
        make_partition(nothing_left, np.full(10, 3), 2, seed=0)


def test_subsets_are_named_by_their_labels() -> None:
    assert LESSON.subsets() == {"1-3-7": [1, 3, 7], "2-5-8": [2, 5, 8], "4-6-9": [4, 6, 9]}
    assert Exclude(exclude=[[], [9, 2], [2, 9]]).subsets() == {"2-9": [2, 9]}
    assert Iid().subsets() == {}
