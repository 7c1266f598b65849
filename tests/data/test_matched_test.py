from __future__ import annotations

import numpy as np

from fedexp.data.assignment import Assignment
from fedexp.data.matched_test import match_test


def test_test_shares_follow_the_training_labels() -> None:
    # Client 0 holds 3 of 4 zeros and no one, client 1 the fourth zero and both ones.
    train_labels = np.array([0, 0, 0, 0, 1, 1])
    train = Assignment.of([np.array([0, 1, 2]), np.array([3, 4, 5])])
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
    train = Assignment.of([np.arange(3), np.arange(3, 5), np.arange(5, 7)])
    shares = match_test(train, train_labels, np.zeros(10, dtype=np.int64), 1, seed=0)
    # 10 images for 3 + 2 + 2: exactly 4.29, 2.86, 2.86.
    assert shares.sizes.tolist() == [4, 3, 3]


def test_no_client_gets_more_test_images_because_it_comes_first() -> None:
    # 400 clients of one image of each of 10 labels, 100 test images of each: one in four gets one.
    train_labels = np.tile(np.arange(10), 400)
    train = Assignment.of(list(np.arange(4_000).reshape(400, 10)))
    sizes = match_test(train, train_labels, np.repeat(np.arange(10), 100), 10, seed=0).sizes
    # 250 a quarter of the clients, give or take five standard deviations of about 12.
    quarters = sizes.reshape(4, 100).sum(axis=1)
    assert quarters.sum() == 1_000
    assert (np.abs(quarters - 250) < 60).all()
