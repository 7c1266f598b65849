"""A population's own clients: the dataset draws what each of them holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fedexp.core.options import ranged
from fedexp.data.population import draw_panel
from fedexp.partitions.base import Partition, register
from fedexp.tasks import NOTHING


@register
@dataclass(frozen=True)
class Population(Partition):
    """Any number of clients, each with examples that nobody else has: the dataset draws them.

    It goes with datasets that draw each client's examples where the client trains, such as
    ``dataset=synthetic_devices``, and with no others. There may be a hundred million clients; nothing of
    that size is ever made. Where there are more than ``panel`` of them, so many are drawn at random:
    files, tables and pictures list these alone, and the server's test set is what they have of test
    examples. Every client is tested on its own.
    """

    deals_by = NOTHING
    population = True

    name: str = "population"
    panel: int = ranged(100, ge=1, le=10_000)
    """Clients that are listed one by one, and whose test examples are the server's test set; drawn at
    random, once for the whole run. Where there are no more clients than that, all of them are."""

    def num_listed(self, num_clients: int) -> int:
        """Return how many clients are listed: ``panel`` at most."""
        return min(num_clients, self.panel)

    def listed(self, num_clients: int, seed: int) -> Sequence[int]:
        """Return the panel, in order; the partition's own seed wins."""
        return draw_panel(num_clients, self.panel, self.own_seed(seed))
