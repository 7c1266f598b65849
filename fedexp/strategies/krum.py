"""Krum, Multi-Krum and the first step of Bulyan, by distances that are exact enough.

Blanchard et al., "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent", arXiv
1703.02757; El Mhamdi et al., "The Hidden Vulnerability of Distributed Learning in Byzantium", arXiv
1802.07927. Flower subtracts squared norms of whole models in float32, where the distances between small
updates vanish: after one step of SGD with the usual rates, the choice was next to random.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import strategy
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

from fedexp.flower.arrays import weights_in
from fedexp.flower.protocol import ARRAYS

Floats = npt.NDArray[np.float64]


class MultiKrum(strategy.MultiKrum):
    """The mean of the updates with the best scores, weighted by examples; Krum selects one."""

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average what Krum selects."""
        distances = squared_distances(contents := [reply.content for reply in replies])
        best = np.argsort(scores(distances, self.num_malicious_nodes), kind="stable")
        chosen = [contents[k] for k in best[: self.num_nodes_to_select]]
        arrays = aggregate_arrayrecords(chosen, self.weighted_by_key)
        return arrays, self.train_metrics_aggr_fn(chosen, self.weighted_by_key)


def select_one_by_one(
    contents: list[RecordDict], num_malicious_nodes: int, num_nodes_to_select: int
) -> list[RecordDict]:
    """Bulyan's first step as its paper has it: Krum's choice is taken away and Krum asked again.

    Flower's default takes Multi-Krum's best at once, which scores every update among all the others,
    chosen ones included (section 4.1). Of equal scores the first wins.
    """
    distances = squared_distances(contents)
    left, chosen = list(range(len(contents))), []
    for _ in range(num_nodes_to_select):
        of_left = scores(distances[np.ix_(left, left)], num_malicious_nodes)
        chosen.append(left.pop(int(of_left.argmin())))
    return [contents[k] for k in chosen]


def squared_distances(contents: list[RecordDict]) -> Floats:
    """Return the squared distance between the weights of every two replies, shape (n, n)."""
    models = [weights_in(content, ARRAYS) for content in contents]
    products = np.zeros((len(models), len(models)))
    for name in models[0]:
        rows = np.stack([model[name].ravel() for model in models]).astype(np.float64)
        products += rows @ rows.T
    norms = products.diagonal()
    return np.asarray(norms[:, None] + norms[None, :] - 2 * products)


def scores(distances: Floats, num_malicious: int) -> Floats:
    """Return Krum's score of each of n updates: its distance to the n - f - 2 nearest others.

    Bulyan asks for scores among so few that none would be left; there it is the nearest one.
    """
    count = len(distances)
    others = distances[~np.eye(count, dtype=bool)].reshape(count, count - 1)
    nearest = np.sort(others, axis=1)[:, : max(1, count - num_malicious - 2)]
    return np.asarray(nearest.sum(axis=1))
