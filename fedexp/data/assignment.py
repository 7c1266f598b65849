"""Who holds which example."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


class Holders(ABC):
    """Who holds which example, client by client: written down, or computed when it is asked for."""

    @property
    @abstractmethod
    def num_clients(self) -> int:
        """Number of clients."""

    @property
    @abstractmethod
    def listed(self) -> Sequence[int]:
        """The clients that files, tables and pictures list one by one, in order."""

    @property
    @abstractmethod
    def sha256(self) -> str:
        """Hash of who holds what, equal on every machine where that is equal."""

    @property
    @abstractmethod
    def num_held(self) -> int | None:
        """How many examples somebody holds; None where there are too many clients to count."""

    @abstractmethod
    def client(self, partition_id: int) -> Indices:
        """Return the positions of the examples that one client holds, int64, shape (n,)."""

    @abstractmethod
    def size(self, partition_id: int) -> int:
        """Return how many examples one client holds."""

    @abstractmethod
    def pooled(self) -> Sequence[Indices]:
        """Return what clients hold together, in as many arrays as there are who count it."""

    @abstractmethod
    def within(self, positions: Indices) -> Holders:
        """Return who holds what if position ``i`` is ``positions[i]`` of a larger dataset."""

    def describe(self) -> dict[str, Any]:
        """Return what partition.json says beside the examples of those who are listed."""
        return {}

    @property
    def sizes(self) -> Indices:
        """Examples per listed client, shape (num_listed,)."""
        return np.array([self.size(client) for client in self.listed], dtype=np.int64)

    def class_counts(self, labels: npt.NDArray[np.int64], num_classes: int) -> Indices:
        """Count labels per listed client, shape (num_listed, num_classes)."""
        own = [np.bincount(labels[self.client(k)], minlength=num_classes) for k in self.listed]
        return np.stack(own)


@dataclass(frozen=True)
class Assignment(Holders):
    """The examples of every client, in one flat array so that a thousand clients cost one copy.

    Attributes:
        indices: Positions in the dataset, all clients' one after another, shape (total,).
        offsets: Client ``k`` holds ``indices[offsets[k]:offsets[k + 1]]``; shape (num_clients + 1,).
    """

    indices: Indices
    offsets: Indices

    @classmethod
    def of(cls, parts: Sequence[Indices]) -> Assignment:
        """Build an assignment from one index array per client."""
        offsets = np.cumsum([0, *(len(part) for part in parts)], dtype=np.int64)
        return cls(np.concatenate(parts).astype(np.int64), offsets)

    @property
    def num_clients(self) -> int:
        """Number of clients."""
        return len(self.offsets) - 1

    @property
    def sizes(self) -> Indices:
        """Examples per client, shape (num_clients,)."""
        return np.diff(self.offsets)

    @property
    def sha256(self) -> str:
        """Hash of who holds what, equal on every machine for equal assignments."""
        digest = hashlib.sha256()
        for array in (self.offsets, self.indices):
            digest.update(array.astype("<i8").tobytes())
        return digest.hexdigest()

    def client(self, partition_id: int) -> Indices:
        """Return the positions of the examples that one client holds."""
        return self.indices[self.offsets[partition_id] : self.offsets[partition_id + 1]]

    def size(self, partition_id: int) -> int:
        """Return how many examples one client holds."""
        return int(self.offsets[partition_id + 1] - self.offsets[partition_id])

    @property
    def num_held(self) -> int:
        """How many examples somebody holds."""
        return len(self.indices)

    @property
    def listed(self) -> Sequence[int]:
        """All clients."""
        return range(self.num_clients)

    def pooled(self) -> Sequence[Indices]:
        """Return every client's examples, an array each."""
        return self.parts()

    def within(self, positions: Indices) -> Assignment:
        """Return who holds what if position ``i`` is ``positions[i]`` of a larger dataset."""
        return Assignment(positions[self.indices], self.offsets)

    def parts(self) -> list[Indices]:
        """Return the positions of every client's examples, an array each."""
        return np.split(self.indices, self.offsets[1:-1])

    def class_counts(self, labels: npt.NDArray[np.int64], num_classes: int) -> Indices:
        """Count labels per client, shape (num_clients, num_classes)."""
        client_of = np.repeat(np.arange(self.num_clients), self.sizes)
        flat = client_of * num_classes + labels[self.indices]
        counts = np.bincount(flat, minlength=self.num_clients * num_classes)
        return counts.reshape(self.num_clients, num_classes)


def apportion(total: int, weights: npt.NDArray[Any]) -> Indices:
    """Divide ``total`` examples in proportion to weights, by largest remainder.

    Args:
        total: Examples to divide, >= 0.
        weights: Shape (n,), >= 0, of which at least one is positive.

    Returns:
        Counts that sum to ``total``, shape (n,); equal remainders go to the lower position.
    """
    # fsum rounds once, whatever the order in which a processor would add.
    exact = total * weights / math.fsum(weights)
    counts = np.floor(exact).astype(np.int64)
    counts[np.argsort(counts - exact, kind="stable")[: total - counts.sum()]] += 1
    return counts
