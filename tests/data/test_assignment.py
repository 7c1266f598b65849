from __future__ import annotations

import numpy as np

from fedexp.data.assignment import Assignment, apportion


def test_class_counts_by_hand() -> None:
    labels = np.array([0, 1, 1, 2, 0])
    partition = Assignment.of([np.array([0, 1, 2]), np.array([4, 3])])
    assert partition.class_counts(labels, 3).tolist() == [[1, 2, 0], [1, 0, 1]]


def test_the_hash_says_who_holds_what() -> None:
    parts = [np.array([0, 1]), np.array([2])]
    assert Assignment.of(parts).sha256 == Assignment.of(parts).sha256
    moved = Assignment.of([np.array([0]), np.array([1, 2])])
    assert moved.sha256 != Assignment.of(parts).sha256


def test_largest_remainders_by_hand() -> None:
    # 10 * (0.15, 0.26, 0.59) = 1.5, 2.6, 5.9: the two last images go to the largest remainders.
    assert apportion(10, np.array([0.15, 0.26, 0.59])).tolist() == [1, 3, 6]
    assert apportion(5, np.array([1, 1])).tolist() == [3, 2]  # equal remainders: the first
    assert apportion(0, np.array([1.0, 0.0])).tolist() == [0, 0]
