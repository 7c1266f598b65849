"""A partition of my own: every client holds more than the one before.

    python mine.py -m partition=mine clients.num=5 strategy=fedavg,local_only

Change ``deal`` to change who holds what.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedexp import Partition, main, partitions

Indices = npt.NDArray[np.int64]


@partitions.register
@dataclass(frozen=True)
class Mine(Partition):
    """Client k of n (from 0) holds the share k + 1 of 1 + 2 + ... + n."""

    name: str = "mine"

    def deal(self, labels: Indices, num_clients: int, seed: int) -> Sequence[Indices]:
        """Return the positions of every client's examples."""
        order = self.rng(seed).permutation(len(labels))
        parts = np.arange(1, num_clients + 1)
        ends = len(labels) * parts.cumsum() // parts.sum()
        return np.split(order, ends[:-1])


if __name__ == "__main__":
    main()
