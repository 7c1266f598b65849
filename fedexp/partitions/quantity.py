"""Size skew alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from fedexp.core.options import Plan, ranged
from fedexp.data.assignment import Indices, apportion
from fedexp.partitions.base import (
    Labels,
    Partition,
    deal_pools,
    enough_examples,
    register,
    until_large_enough,
)
from fedexp.tasks import NOTHING


@register
@dataclass(frozen=True)
class Quantity(Partition):
    """Size skew: the clients' sizes are a draw from Dir(alpha, ..., alpha), their labels are not skewed.

    NIID-Bench's quantity skew (Li et al., arXiv 2102.02079); sizes are drawn anew until every client has
    ``min_size``.
    """

    deals_by = NOTHING

    name: str = "quantity"
    alpha: float = ranged(0.5, gt=0, le=1e6)
    """Concentration of the distribution; the smaller, the more sizes differ."""
    min_size: int = ranged(10, ge=1)
    """Training examples that every client has at least."""

    @property
    def label(self) -> str:
        """As in ``quantity0.5``."""
        return f"quantity{self.alpha:g}"

    def errors(self, plan: Plan) -> Iterable[str]:
        """There must be ``min_size`` examples for everybody."""
        return enough_examples(plan, "min_size", self.min_size)

    def deal(self, labels: Labels, num_clients: int, seed: int) -> Sequence[Indices]:
        """Draw sizes until the smallest is large enough, and cut a random order by them."""
        rng = self.rng(seed)
        pool = rng.permutation(len(labels))
        concentration = np.full(num_clients, self.alpha)

        def draw() -> Indices:
            return apportion(len(pool), rng.dirichlet(concentration))[None]

        what = f"partition={self.name} at partition.alpha={self.alpha}"
        return deal_pools([pool], until_large_enough(draw, self.min_size, what, num_clients))
