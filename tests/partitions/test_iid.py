from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from fedexp.partitions.base import make_partition
from fedexp.partitions.iid import Iid


def _labels(count: int, classes: int = 10, seed: int = 0) -> npt.NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, classes, count)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 30), st.integers(30, 400), st.integers(0, 2**32 - 1))
def test_iid_deals_every_image_once(clients: int, count: int, seed: int) -> None:
    partition = make_partition(Iid(), _labels(count), clients, seed)
    assert sorted(partition.indices.tolist()) == list(range(count))
    assert partition.sizes.max() - partition.sizes.min() <= 1
    assert partition.sha256 == make_partition(Iid(), _labels(count), clients, seed).sha256


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
