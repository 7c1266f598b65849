"""Any number of clients: each draws its own examples, with replacement."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from fedexp import tasks
from fedexp.core.options import Plan, ranged
from fedexp.core.seeding import Purpose, derive_rng
from fedexp.data.assignment import Holders, Indices
from fedexp.data.population import draw_panel
from fedexp.partitions.base import Labels, Partition, register
from fedexp.tasks import NOTHING

CHECKED = 16
"""Clients whose examples go into the hash, beside the rule by which all are drawn."""


@register
@dataclass(frozen=True)
class Resample(Partition):
    """Every client draws its own examples from all training examples, with replacement.

    There may be a hundred million clients: what one of them holds follows from the seed and its number,
    and is computed where it trains. It draws ``samples_per_client`` training examples, and test examples
    in proportion. With ``alpha``, every client has a mix of labels of its own, drawn from Dir(a p) as in
    ``dirichlet_balanced`` (Hsu et al., arXiv 1909.06335), where p is the mix of all training examples.
    Where there are more than ``panel`` clients, so many are drawn at random, and files, tables and
    pictures list these alone.
    """

    deals_by = NOTHING
    with_replacement = True

    name: str = "resample"
    samples_per_client: int = ranged(60, ge=1)
    """Training examples that a client draws; it may draw one of them twice."""
    alpha: float | None = ranged(None, gt=0, le=1e6)
    """Concentration per label of a client's mix of labels; the smaller, the more clients differ. null
    draws from all examples alike."""
    panel: int = ranged(100, ge=1, le=10_000)
    """Clients that are listed one by one, and tested at the end; drawn at random, once for the whole run.
    Where there are no more clients than that, all of them are."""

    @property
    def label(self) -> str:
        """As in ``resample60`` or ``resample60-dir0.3``."""
        mix = "" if self.alpha is None else f"-dir{self.alpha:g}"
        return f"{self.name}{self.samples_per_client}{mix}"

    def errors(self, plan: Plan) -> Iterable[str]:
        """A mix needs labels, and nobody draws more examples than there are."""
        dataset = plan.dataset
        if self.samples_per_client > dataset.num_dealt:
            yield (
                f"partition.samples_per_client must be <= {dataset.num_dealt}, the training examples of "
                f"dataset={dataset.name}, got {self.samples_per_client}"
            )
        if self.alpha is not None and not tasks.of(dataset).group:
            yield (
                f"partition.alpha={self.alpha:g} is about labels, which dataset={dataset.name} has not: "
                "partition.alpha=null draws from all examples alike"
            )

    def num_listed(self, num_clients: int) -> int:
        """Return how many clients are listed: ``panel`` at most."""
        return min(num_clients, self.panel)

    def hold(self, labels: Labels, num_clients: int, seed: int) -> Holders:
        """Say how every client draws; nothing is drawn yet."""
        own_seed = self.own_seed(seed)
        return Drawn(
            _by_label(labels),
            np.bincount(labels),
            self.samples_per_client,
            num_clients,
            self.panel,
            own_seed,
            own_seed,
            "partition",
            self._mixes(labels, own_seed),
        )

    def hold_test(
        self, train: Holders, train_labels: Labels, test_labels: Labels, num_labels: int, seed: int
    ) -> Holders:
        """Say how every client draws its test examples: in proportion, one at least, by its own mix."""
        (pool,) = train.pooled()
        size = self.samples_per_client * len(test_labels) / len(pool)
        own_seed = self.own_seed(seed)
        return Drawn(
            _by_label(test_labels),
            np.bincount(test_labels, minlength=num_labels),
            max(1, round(size)),
            train.num_clients,
            self.panel,
            seed,
            own_seed,
            "client_test",
            self._mixes(train_labels[pool], own_seed, num_labels),
        )

    def _mixes(self, labels: Labels, seed: int, num_labels: int = 0) -> Mixes | None:
        if self.alpha is None:
            return None
        counts = np.bincount(labels, minlength=num_labels)
        present = np.flatnonzero(counts)
        concentration = self.alpha * len(present) * counts[present] / len(labels)
        return Mixes(present, concentration, len(counts), seed)


@dataclass(frozen=True, eq=False)
class Mixes:
    """Every client's mix of labels.

    Attributes:
        present: The labels that there are, in order, shape (n,).
        concentration: Of the Dirichlet distribution, float64, shape (n,).
        num_labels: Labels in all.
        seed: Decides all mixes.
    """

    present: Indices
    concentration: npt.NDArray[np.float64]
    num_labels: int
    seed: int

    def of(self, client: int) -> npt.NDArray[np.float64]:
        """Return the shares of a client's labels, shape (num_labels,); they sum to 1."""
        shares = np.zeros(self.num_labels)
        rng = derive_rng(self.seed, "mix", 0, client)
        shares[self.present] = rng.dirichlet(self.concentration)
        return shares


@dataclass(frozen=True, eq=False)
class Drawn(Holders):
    """What every client draws from the same examples.

    Attributes:
        pool: Positions of all examples that can be drawn, label by label, shape (total,).
        counts: How many of them each label has, shape (num_labels,).
        per_client: Examples that a client draws.
        clients: Number of clients.
        panel: How many of them are listed at most.
        seed: Decides what is drawn.
        panel_seed: Decides who is listed.
        purpose: What is drawn.
        mixes: Every client's mix of labels; None draws from all examples alike.
    """

    pool: Indices
    counts: Indices
    per_client: int
    clients: int
    panel: int
    seed: int
    panel_seed: int
    purpose: Purpose
    mixes: Mixes | None = None

    @property
    def num_clients(self) -> int:
        """Number of clients."""
        return self.clients

    @cached_property
    def listed(self) -> Sequence[int]:
        """All clients where they are few; else those of the panel, in order."""
        return draw_panel(self.clients, self.panel, self.panel_seed)

    @property
    def num_held(self) -> int | None:
        """How many examples somebody draws; None where not all clients are listed."""
        if self.clients > self.panel:
            return None
        return len(np.unique(np.concatenate([self.client(client) for client in self.listed])))

    @cached_property
    def sha256(self) -> str:
        """Hash of the rule, of the examples that can be drawn, and of what the first clients draw."""
        rule = {**self._rule, "purpose": self.purpose, "num_clients": self.clients}
        digest = hashlib.sha256(json.dumps(rule, sort_keys=True).encode())
        first = [self.client(client) for client in range(min(CHECKED, self.clients))]
        for array in (self.pool, self.counts, *first):
            digest.update(array.astype("<i8").tobytes())
        return digest.hexdigest()

    def client(self, partition_id: int) -> Indices:
        """Return what one client draws, in the order in which it does; the same whenever it is asked."""
        rng = derive_rng(self.seed, self.purpose, 0, partition_id)
        if self.mixes is None:
            return self.pool[rng.integers(len(self.pool), size=self.per_client)]
        shares = self._shares(self.mixes, partition_id)
        if not shares.any():
            return self.pool[:0]
        labels = rng.choice(len(shares), self.per_client, p=shares / shares.sum())
        starts = np.cumsum(self.counts) - self.counts
        places: Indices = starts[labels] + rng.integers(self.counts[labels])
        return self.pool[places]

    def size(self, partition_id: int) -> int:
        """Return how many examples one client holds."""
        if self.mixes is None or self._shares(self.mixes, partition_id).any():
            return self.per_client
        return 0

    def pooled(self) -> Sequence[Indices]:
        """Return all that can be drawn: the means of it are those that clients' draws have."""
        return [self.pool]

    def within(self, positions: Indices) -> Drawn:
        """Return the same draws from a larger dataset, of which these are the positions."""
        return replace(self, pool=positions[self.pool])

    def describe(self) -> dict[str, Any]:
        """Return the rule by which clients draw."""
        return {"drawn": self._rule}

    def _shares(self, mixes: Mixes, client: int) -> npt.NDArray[np.float64]:
        """Return a client's mix of the labels that there are; test examples may lack all of its own."""
        return np.where(self.counts > 0, mixes.of(client), 0.0)

    @property
    def _rule(self) -> dict[str, Any]:
        return {
            "samples_per_client": self.per_client,
            "dirichlet": None if self.mixes is None else self.mixes.concentration.tolist(),
            "seed": self.seed,
        }


def _by_label(labels: Labels) -> Indices:
    return np.argsort(labels, kind="stable").astype(np.int64)
