"""Bulyan: Krum's choice, narrowed coordinate by coordinate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fedexp.core.roles import Server, Setup
from fedexp.core.weights import Weights
from fedexp.strategies.base import register
from fedexp.strategies.krum import Krum, memory_of_distances, scores, squared_distances


@register
@dataclass(frozen=True)
class Bulyan(Krum):
    """El Mhamdi et al., ICML 2018, arXiv 1802.07927, by Flower's Bulyan.

    Krum chooses one update, ``n - 2 f`` times; what it chose is removed before it chooses again, as in
    the paper (Flower's default does not remove it). Then, coordinate by coordinate, the server takes the
    mean of the ``n - 4 f`` values nearest to the median. ``f`` is ``num_malicious``.
    """

    formula: ClassVar[str] = "4 * strategy.num_malicious + 3"

    name: str = "bulyan"

    @property
    def min_clients(self) -> int:
        """Bulyan's condition n >= 4 f + 3."""
        return 4 * self.num_malicious + 3

    def server(self, setup: Setup) -> Server:
        """Return Flower's strategy behind the adapter."""
        from flwr.serverapp import strategy

        from fedexp.flower.strategies import WHOLE_COHORT, FlowerServer

        flowers = strategy.Bulyan(
            num_malicious_nodes=self.num_malicious,
            selection_rule=_select_one_by_one,
            **WHOLE_COHORT,
        )
        return FlowerServer(flowers, memory=_memory)


def _memory(count: int, model: Weights) -> int:
    """Return the bytes of copies of all updates, and of Krum's work on them."""
    copies = count * sum(array.nbytes for array in model.values())
    return copies + memory_of_distances(count, model)


def _select_one_by_one(contents: list[Any], num_malicious: int, num_selected: int) -> list[Any]:
    """Take Krum's choice away and ask Krum again; of equal scores the first wins.

    Args:
        contents: What Flower hands over, a record per reply.
        num_malicious: Faulty clients to withstand.
        num_selected: How many to choose.
    """
    from fedexp.flower.messages import ARRAYS, weights_in

    models = [weights_in(content, ARRAYS) for content in contents]
    distances = squared_distances(np.stack([model[name] for model in models]) for name in models[0])
    left, chosen = list(range(len(contents))), []
    for _ in range(num_selected):
        of_left = scores(distances[np.ix_(left, left)], num_malicious)
        chosen.append(left.pop(int(of_left.argmin())))
    return [contents[k] for k in chosen]
