"""Label skew and size skew: shares of every label drawn from a Dirichlet distribution."""

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


@register
@dataclass(frozen=True)
class Dirichlet(Partition):
    """Label skew: every label is split over the clients in shares drawn from Dir(alpha, ..., alpha).

    The variant of Yurochkin et al. (arXiv 1905.12022) and NIID-Bench (Li et al., arXiv 2102.02079): one
    draw per label, over clients, so that sizes differ as well as labels. Hsu et al. (arXiv 1909.06335)
    draw once per client, over labels; that is ``dirichlet_balanced``. Shares become whole examples by
    largest remainder. All labels are drawn anew until every client has ``min_size``.
    """

    name: str = "dirichlet"
    alpha: float = ranged(0.5, gt=0, le=1e6)
    """Concentration of the distribution; the smaller, the more clients differ."""
    min_size: int = ranged(10, ge=1)
    """Training examples that every client has at least."""

    @property
    def label(self) -> str:
        """As in ``dir0.3``."""
        return f"dir{self.alpha:g}"

    def errors(self, plan: Plan) -> Iterable[str]:
        """There must be ``min_size`` examples for everybody."""
        return enough_examples(plan, "min_size", self.min_size)

    def deal(self, labels: Labels, num_clients: int, seed: int) -> Sequence[Indices]:
        """Draw shares of every label until the smallest client is large enough."""
        rng = self.rng(seed)
        pools = [rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
        concentration = np.full(num_clients, self.alpha)

        def draw() -> Indices:
            return np.stack([apportion(len(pool), rng.dirichlet(concentration)) for pool in pools])

        what = f"partition={self.name} at partition.alpha={self.alpha}"
        return deal_pools(pools, until_large_enough(draw, self.min_size, what, num_clients))
