"""Test examples for every client, with the mix of labels, or of groups, of its training examples."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedexp.core.seeding import derive_rng
from fedexp.data.assignment import Assignment, Holders, Indices, apportion


def match_test(
    train: Holders,
    train_labels: npt.NDArray[np.int64],
    test_labels: npt.NDArray[np.int64],
    num_classes: int,
    seed: int,
) -> Assignment:
    """Deal the test images so that every client's share has the label mix of its training images.

    What is said of images and labels holds for examples and groups of other tasks (``Task.grouping``).

    Test images of a label go to clients in proportion to their training images of it, by largest
    remainder; no test image is given twice. Of equal remainders chance decides, for every label anew:
    among many clients of few images, the first would otherwise get most of the test images.

    Args:
        train: Who holds which training image.
        train_labels: Shape (num_train,).
        test_labels: Shape (num_test,).
        num_classes: Number of labels.
        seed: Decides which of the test images of a label a client gets, and who of equals gets one more.

    Returns:
        An assignment of the test set; a client with few images may get none.
    """
    rng = derive_rng(seed, "client_test")
    counts = train.class_counts(train_labels, num_classes)
    pools = [rng.permutation(np.flatnonzero(test_labels == label)) for label in range(num_classes)]
    parts: list[list[Indices]] = [[] for _ in range(train.num_clients)]
    for pool, held in zip(pools, counts.T, strict=True):
        if held.sum() == 0:
            continue
        order = rng.permutation(train.num_clients)
        share = np.empty_like(held)
        share[order] = apportion(len(pool), held[order])
        for client, piece in enumerate(np.split(pool, np.cumsum(share)[:-1])):
            parts[client].append(piece)
    return Assignment.of([np.sort(np.concatenate(part)) for part in parts])
