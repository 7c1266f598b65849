"""A partition: every client holds twice what the one before holds; some labels are looked at apart."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedexp import Partition, main, partitions
from fedexp.core.options import Plan

Indices = npt.NDArray[np.int64]


@partitions.register
@dataclass(frozen=True)
class Ladder(Partition):
    name: str = "ladder"

    def errors(self, plan: Plan) -> Iterable[str]:
        if plan.clients.num > 5:
            yield f"clients.num must be <= 5 for partition=ladder, got {plan.clients.num}"

    def deal(self, labels: Indices, num_clients: int, seed: int) -> Sequence[Indices]:
        order = self.rng(seed).permutation(len(labels))
        steps = 2 ** np.arange(num_clients)
        return np.split(order, (len(labels) * steps.cumsum() // steps.sum())[:-1])

    def subsets(self) -> dict[str, list[int]]:
        return {"0-1": [0, 1]}


if __name__ == "__main__":
    main()
