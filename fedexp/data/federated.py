"""What the clients and the server hold between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fedexp.data.assignment import Assignment, Holders, Indices
from fedexp.data.examples import Examples, Spec
from fedexp.data.population import TEST, TRAIN, Population


@dataclass(frozen=True)
class FederatedData:
    """Everything the clients and the server hold between them.

    Attributes:
        spec: What is known of the dataset.
        train: Training examples, as the clients see them.
        test: Test examples, as the server sees them.
        partition: Who holds which training example.
        client_test: Who is tested on which test example.
        seen_test: Test examples as the clients see them, where that is not as the server does.
        server_val: Positions of the training examples that the server holds out; nobody trains on them.
        client_val: Who holds out which training example; these are not in ``partition``.
        columns: How every column of a table became what models see.
        population: Draws the examples of any client, where ``train`` and ``test`` are those of listed
            clients alone.
    """

    spec: Spec
    train: Examples
    test: Examples
    partition: Holders
    client_test: Holders
    seen_test: Examples | None = None
    server_val: Indices = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    client_val: Assignment | None = None
    columns: Sequence[dict[str, Any]] = ()
    population: Population | None = None

    @property
    def clients_test(self) -> Examples:
        """Test examples as the clients see them; the server's own, not a copy, unless they differ."""
        return self.test if self.seen_test is None else self.seen_test

    def train_examples(self, clients: Sequence[int]) -> Examples:
        """Return a copy of the training examples of some clients, one after another."""
        if self.population is not None:
            return Examples.joined([self.population.draw(k)[TRAIN] for k in clients])
        return self.train.subset(np.concatenate([self.partition.client(k) for k in clients]))

    def client_test_examples(self, client: int) -> Examples:
        """Return a copy of the test examples of one client, as it sees them."""
        if self.population is not None:
            return self.population.draw(client)[TEST]
        return self.clients_test.subset(self.client_test.client(client))
