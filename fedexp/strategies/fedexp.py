"""FedExP: the server extrapolates, the more the less clients' updates agree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedexp.core.options import ranged
from fedexp.core.roles import Server, Setup, Updates
from fedexp.core.weights import Weights
from fedexp.strategies.base import Strategy, register


@register
@dataclass(frozen=True)
class FedExp(Strategy):
    """Jhunjhunwala et al., ICLR 2023, arXiv 2301.09604.

    The server goes ``max(1, sum p_k ||d_k||^2 / (2 (||d||^2 + epsilon)))`` times the mean update ``d``,
    where ``d_k`` is client ``k``'s update and ``p_k`` its share of the examples (in the paper all are
    alike). Departure: the model is that of the last round, where the paper's evaluation averages the last
    two.
    """

    averages_buffers = True

    name: str = "fedexp"
    epsilon: float = ranged(0.001, gt=0)
    """Keeps the step bounded where updates cancel out."""

    def server(self, setup: Setup) -> Server:
        """Return the server's side."""
        return FedExpServer(self.epsilon)


class FedExpServer(Server):
    """Extrapolate along the mean update."""

    def __init__(self, epsilon: float) -> None:
        self._epsilon = epsilon

    def combine(self, t: int, model: Weights, updates: Updates) -> Weights:
        """Norms are taken over all parameters, in float64."""
        mean = updates.mean()
        apart = sum(
            share * _square(update.weights, model)
            for share, update in zip(updates.shares, updates, strict=True)
        )
        step = max(1.0, apart / (2 * (_square(mean, model) + self._epsilon)))
        if step == 1.0:
            return mean
        return {name: x + step * (mean[name] - x) for name, x in model.items()}


def _square(weights: Weights, model: Weights) -> float:
    changes = (weights[name].astype(np.float64) - x for name, x in model.items())
    return float(sum(np.square(change).sum() for change in changes))
