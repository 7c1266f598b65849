"""Clients whose examples are drawn when they are asked for, and of whom a few are listed."""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, Protocol

from fedexp.core.seeding import derive_rng
from fedexp.data.assignment import Assignment, Holders, Indices
from fedexp.data.examples import Examples

TRAIN: Literal[0] = 0
TEST: Literal[1] = 1
"""Where a client's training and test examples stand among what is drawn for it."""


class Population(Protocol):
    """What draws the examples of any client: a dataset's page."""

    def draw(self, client: int) -> tuple[Examples, Examples]:
        """Draw one client's training and test examples; the same whenever and wherever it is asked."""

    def sizes(self, client: int) -> tuple[int, int]:
        """Return how many training and test examples :meth:`draw` returns."""


def draw_panel(num_clients: int, most: int, seed: int) -> Sequence[int]:
    """Return the clients that are listed one by one, in order.

    Args:
        num_clients: Number of clients, >= 1.
        most: How many of them are listed at most; where there are no more, all of them are.
        seed: Decides who they are.
    """
    if num_clients <= most:
        return range(num_clients)
    rng = derive_rng(seed, "panel")
    return sorted(rng.choice(num_clients, most, replace=False).tolist())


@dataclass(frozen=True, eq=False)
class Panel(Holders):
    """Which of the listed clients' examples are whose; those of all others are in no array.

    Attributes:
        population: Draws examples.
        part: Whether training or test examples are held.
        clients: Number of clients.
        panel: The listed ones, in order.
        own: What each of them holds of all listed clients' examples.
        examples_sha256: Hash of what the population draws.
    """

    population: Population
    part: Literal[0, 1]
    clients: int
    panel: Sequence[int]
    own: Assignment
    examples_sha256: str

    @property
    def num_clients(self) -> int:
        """Number of clients."""
        return self.clients

    @property
    def listed(self) -> Sequence[int]:
        """The clients whose examples are in an array."""
        return self.panel

    @cached_property
    def sha256(self) -> str:
        """Hash of what the population draws, how many clients there are, who is listed and holds what."""
        told = [self.examples_sha256, self.clients, [*self.panel], self.own.sha256]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()

    @property
    def num_held(self) -> int | None:
        """How many examples somebody holds; None where not all clients are listed."""
        return self.own.num_held if len(self.panel) == self.clients else None

    @property
    def sizes(self) -> Indices:
        """Examples per listed client, shape (num_listed,)."""
        return self.own.sizes

    def client(self, partition_id: int) -> Indices:
        """Return the positions of the examples of a client that is listed.

        Raises:
            ValueError: If it is not.
        """
        place = bisect_left(self.panel, partition_id)
        if place == len(self.panel) or self.panel[place] != partition_id:
            raise ValueError(f"client {partition_id} is not listed: its examples are only drawn")
        return self.own.client(place)

    def size(self, partition_id: int) -> int:
        """Return how many examples one client holds, whether it is listed or not."""
        return self.population.sizes(partition_id)[self.part]

    def pooled(self) -> Sequence[Indices]:
        """Return every listed client's examples, an array each."""
        return self.own.parts()

    def within(self, positions: Indices) -> Panel:
        """Return who holds what if position ``i`` is ``positions[i]`` of a larger dataset."""
        return replace(self, own=self.own.within(positions))
