"""Label skew at equal sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedexp.core.options import ranged
from fedexp.data.assignment import Indices, apportion
from fedexp.partitions.base import Labels, Partition, deal_pools, register


@register
@dataclass(frozen=True)
class DirichletBalanced(Partition):
    """Label skew at equal sizes (they differ by one at most): label mixes drawn from a Dirichlet.

    Hsu et al. (arXiv 1909.06335): a client's mix of labels is a draw from Dir(a p), where p is the
    training set's own mix. Their ``a`` is ``alpha`` times the number of labels here, so that ``alpha``
    is the concentration per label, as in ``dirichlet``. Examples are taken without replacement, client
    by client in random order; where a label runs out, the rest of the client's examples comes from the
    labels that are left, in proportion to its mix. The last clients therefore depart from their draw.
    """

    name: str = "dirichlet_balanced"
    alpha: float = ranged(0.5, gt=0, le=1e6)
    """Concentration per label; the smaller, the more clients differ."""

    @property
    def label(self) -> str:
        """As in ``dirbal0.3``."""
        return f"dirbal{self.alpha:g}"

    def deal(self, labels: Labels, num_clients: int, seed: int) -> Sequence[Indices]:
        """Draw a mix for every client, then let them take what is left, in random order."""
        rng = self.rng(seed)
        pools = [rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
        left = np.array([len(pool) for pool in pools])
        concentration = self.alpha * len(pools) * left / len(labels)
        mixes = rng.dirichlet(concentration, num_clients)
        sizes = np.diff(np.arange(num_clients + 1) * len(labels) // num_clients)
        counts = np.zeros((len(pools), num_clients), dtype=np.int64)
        for client in rng.permutation(num_clients):
            counts[:, client] = _take(sizes[client], mixes[client], left)
            left = left - counts[:, client]
        return deal_pools(pools, counts)


def _take(size: int, mix: npt.NDArray[np.float64], left: Indices) -> Indices:
    """Take ``size`` examples in proportion to ``mix``, of each label at most what is left of it."""
    taken = np.zeros_like(left)
    while size > taken.sum():
        weights = np.where(left > taken, mix, 0.0)
        if not weights.any():  # of the labels in the mix none is left
            weights = (left - taken).astype(np.float64)
        taken = np.minimum(left, taken + apportion(size - taken.sum(), weights))
    return taken
