"""Krum: the one update that lies nearest to its neighbours."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fedexp.core.options import ranged
from fedexp.core.roles import Server, Setup, Updates
from fedexp.core.weights import Weights
from fedexp.strategies.base import Strategy, register

Floats = npt.NDArray[np.float64]


@register
@dataclass(frozen=True)
class Krum(Strategy):
    """Blanchard et al., NeurIPS 2017, arXiv 1703.02757.

    The one update that lies nearest to its ``n - f - 2`` nearest neighbours; withstands
    ``num_malicious`` (f) clients. Distances are computed in float64: Flower subtracts squared norms of
    whole models in float32, where the distances between small updates vanish.
    """

    formula: ClassVar[str] = "2 * strategy.num_malicious + 3"
    measures_distances: ClassVar[bool] = True

    name: str = "krum"
    num_malicious: int = ranged(1, ge=0)
    """Faulty clients that it withstands (f)."""

    @property
    def min_clients(self) -> int:
        """Krum's condition n > 2 f + 2."""
        return 2 * self.num_malicious + 3

    def server(self, setup: Setup) -> Server:
        """Return the server's side."""
        return KrumServer(self.num_malicious, 1)


class KrumServer(Server):
    """The mean of the updates with the best scores, weighted by examples; Krum selects one."""

    def __init__(self, num_malicious: int, num_selected: int) -> None:
        self._num_malicious, self._num_selected = num_malicious, num_selected
        self._chosen: list[int] = []

    def combine(self, t: int, model: Weights, updates: Updates) -> Weights:
        """Average what Krum selects."""
        distances = squared_distances(updates.stacked(name) for name in model)
        ranked = np.argsort(scores(distances, self._num_malicious), kind="stable")
        self._chosen = ranked[: self._num_selected].tolist()
        return updates.only(self._chosen).mean()

    def memory(self, count: int, model: Weights) -> int:
        """Return what the largest array of all updates takes, as it is and in float64."""
        return memory_of_distances(count, model)

    def loss(self, updates: Updates) -> float | None:
        """Return the loss of those that were selected."""
        return updates.only(self._chosen).mean_loss()


def squared_distances(arrays: Iterable[npt.NDArray[Any]]) -> Floats:
    """Return the squared distance between every two of n models, shape (n, n).

    Args:
        arrays: The models' arrays, one after another: each of all models, shape (n, ...).
    """
    products = np.zeros((1, 1))
    for array in arrays:
        rows = array.reshape(len(array), -1).astype(np.float64)
        products = products + rows @ rows.T
    norms = products.diagonal()
    return np.asarray(norms[:, None] + norms[None, :] - 2 * products)


def memory_of_distances(count: int, model: Weights) -> int:
    """Return the bytes of the largest array of so many models, as it is and in float64."""
    return count * max(array.nbytes + 8 * array.size for array in model.values())


def scores(distances: Floats, num_malicious: int) -> Floats:
    """Return Krum's score of each of n updates: its distance to the n - f - 2 nearest others.

    Bulyan asks for scores among so few that none would be left; there it is the nearest one.
    """
    count = len(distances)
    others = distances[~np.eye(count, dtype=bool)].reshape(count, count - 1)
    nearest = np.sort(others, axis=1)[:, : max(1, count - num_malicious - 2)]
    return np.asarray(nearest.sum(axis=1))
