"""What a partition is: who holds which training example."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fedexp.core.options import FedexpError, Plan, ranged
from fedexp.core.registry import Registry
from fedexp.core.seeding import derive_rng
from fedexp.data.assignment import Assignment, Holders, Indices
from fedexp.data.matched_test import match_test
from fedexp.tasks import GROUPS, LABELS, NOTHING

MAX_DRAWS = 1_000
"""Draws of sizes after which ``min_size`` counts as out of reach."""

Labels = npt.NDArray[np.int64]
Held = tuple[npt.NDArray[Any], Holders]
"""Inputs, shape (N, ...), and who holds which of them."""


@dataclass(frozen=True)
class Partition:
    """How the training examples are dealt to clients; ``seed: null`` follows the experiment's seed.

    Attributes:
        deals_by: What it tells examples apart by: ``labels`` where options name labels or count them;
            ``groups``, where it makes no difference whether examples are grouped by their labels or, in a
            regression, by tenths of their targets; ``nothing``.
        by_owner: Whether the data say who holds what. There are then as many clients as the data name
            owners, :meth:`deal` is given the owners in place of labels, and each client is tested on
            its own test examples where these have owners, too.
        with_replacement: Whether clients may hold the same example, so that there may be more clients
            than examples.
        population: Whether the clients are those of a dataset that draws each client's examples
            (:class:`fedexp.datasets.PopulationDataset`): nothing is dealt.
    """

    deals_by: ClassVar[str] = GROUPS
    by_owner: ClassVar[bool] = False
    with_replacement: ClassVar[bool] = False
    population: ClassVar[bool] = False

    name: str = ""
    seed: int | None = ranged(None, ge=0)
    """Seed of the split; null follows the experiment's seed."""

    @classmethod
    def can_deal(cls, told_apart_by: str) -> bool:
        """Say whether it can deal examples that can be told apart by this alone."""
        return _MEANS.index(cls.deals_by) <= _MEANS.index(told_apart_by)

    @property
    def label(self) -> str:
        """A short name with the option that matters most, for lists of runs."""
        return self.name

    def errors(self, plan: Plan) -> Iterable[str]:
        """Return a line for every rule between options that is broken.

        What only the labels themselves can tell is found when they are dealt.
        """
        return []

    def deal(self, labels: Labels, num_clients: int, seed: int) -> Sequence[Indices]:
        """Deal the examples.

        Args:
            labels: Of every training example, int64, shape (N,); in a regression the tenth of the
                training examples that its target is in; where the next token is predicted, zeros. With
                ``by_owner``, the owner of every training example.
            num_clients: Number of clients, >= 1.
            seed: The experiment's; :meth:`rng` makes a generator of it.

        Returns:
            One array of positions in 0 .. N - 1 per client; no position stands in two of them.

        Raises:
            FedexpError: If the labels do not allow for what the options ask.
        """
        raise NotImplementedError(f"partition={self.name} does not say who holds what")

    def hold(self, labels: Labels, num_clients: int, seed: int) -> Holders:
        """Say who holds what: what :meth:`deal` returns, checked; arguments as there.

        Raises:
            FedexpError: As :func:`make_partition`.
        """
        return make_partition(self, labels, num_clients, seed)

    def hold_test(
        self, train: Holders, train_labels: Labels, test_labels: Labels, num_labels: int, seed: int
    ) -> Holders:
        """Say on which test examples each client is tested; see :func:`match_test`."""
        return match_test(train, train_labels, test_labels, num_labels, seed)

    def num_listed(self, num_clients: int) -> int:
        """Return how many clients are listed one by one in files, tables and pictures: all of them."""
        return num_clients

    def listed(self, num_clients: int, seed: int) -> Sequence[int]:
        """Return which clients of a population are listed, in order; ``seed`` is the experiment's."""
        return range(num_clients)

    def rng(self, seed: int) -> np.random.Generator:
        """Return the generator that examples are dealt with; the partition's own seed wins."""
        return derive_rng(self.own_seed(seed), "partition")

    def own_seed(self, seed: int) -> int:
        """Return the partition's seed, or the experiment's where it has none."""
        return seed if self.seed is None else self.seed

    def subsets(self) -> dict[str, list[int]]:
        """Name the groups of labels on which the test set is worth splitting.

        Returns:
            Labels joined by hyphens -> the labels, for instance ``{"1-3-7": [1, 3, 7]}``.
        """
        return {}

    def as_seen(
        self, train: Held, test: Held, seed: int
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any]] | None:
        """Return training and test inputs as their holders see them; None where that is as they are."""
        return None

    def describe(self, num_clients: int) -> dict[str, Any]:
        """Return what partition.json says beside who holds what."""
        return {}


_MEANS = (NOTHING, GROUPS, LABELS)

REGISTRY: Registry[Partition] = Registry("partition", Partition)
register = REGISTRY.register


def make_partition(partition: Partition, labels: Labels, num_clients: int, seed: int) -> Assignment:
    """Deal examples to clients, and check that they are dealt as they must be.

    Args:
        partition: Which partition, and its options.
        labels: Label of every training example, shape (N,).
        num_clients: Number of clients, >= 1.
        seed: The experiment's seed.

    Returns:
        An assignment in which no example belongs to two clients, and every client holds at least one.

    Raises:
        FedexpError: If a client would be left without an example, the labels do not allow for what the
            options ask, or the partition does not keep to :meth:`Partition.deal`.
    """
    parts = partition.deal(labels, num_clients, seed)
    what = f"partition={partition.name}"
    if len(parts) != num_clients:
        raise FedexpError(f"{what} makes {len(parts)} partitions, clients.num is {num_clients}")
    dealt = Assignment.of(parts)
    empty = np.flatnonzero(dealt.sizes == 0)
    if len(empty):
        raise FedexpError(
            f"{what} leaves {len(empty)} of {num_clients} clients without an example "
            f"(the first is client {empty[0]}): choose fewer clients (clients.num) or another partition"
        )
    if not all(np.ndim(part) == 1 and np.asarray(part).dtype.kind in "iu" for part in parts):
        raise FedexpError(
            f"{what} must deal positions: an array of integers, shape (n,), per client"
        )
    if dealt.indices.min() < 0 or dealt.indices.max() >= len(labels):
        raise FedexpError(
            f"{what} deals positions from {dealt.indices.min()} to {dealt.indices.max()}; they must "
            f"lie between 0 and {len(labels) - 1}"
        )
    if np.bincount(dealt.indices).max() > 1:
        raise FedexpError(f"{what} gives an example to more than one client")
    return dealt


def deal_pools(pools: Sequence[Indices], counts: Indices) -> list[Indices]:
    """Give client ``k`` the next ``counts[p, k]`` examples of every pool ``p``."""
    pieces = [np.split(pool, np.cumsum(row)[:-1]) for pool, row in zip(pools, counts, strict=True)]
    return [np.concatenate(of_client) for of_client in zip(*pieces, strict=True)]


def until_large_enough(
    draw: Callable[[], Indices], min_size: int, what: str, num_clients: int
) -> Indices:
    """Draw counts, shape (num_pools, num_clients), until the smallest client has ``min_size``.

    Raises:
        FedexpError: If none of a thousand draws does.
    """
    best = 0
    for _ in range(MAX_DRAWS):
        counts = draw()
        smallest = int(counts.sum(axis=0).min())
        if smallest >= min_size:
            return counts
        best = max(best, smallest)
    raise FedexpError(
        f"{what} and clients.num={num_clients}: none of {MAX_DRAWS:,} draws gave every client "
        f"partition.min_size={min_size} examples (at best the smallest had {best}): choose a larger "
        "alpha, a smaller min_size or fewer clients"
    )


def enough_examples(plan: Plan, option: str, per_client: int) -> Iterator[str]:
    """Yield a line unless every client can have ``per_client`` examples."""
    num_clients, num_train = plan.clients.num, plan.dataset.num_dealt
    most = num_train // num_clients
    # With more clients than examples nothing fits; that has its own line.
    if most and per_client > most:
        yield (
            f"partition.{option} must be <= {most} for clients.num={num_clients} on "
            f"{plan.dataset.name} ({num_train} training examples), got {per_client}"
        )
