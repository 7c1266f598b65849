"""Runs whose examples lie on nodes: what the server says of them, and what a node makes of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fedexp.config.schema import Config
from fedexp.data.agreement import Agreement
from fedexp.data.assignment import Assignment
from fedexp.data.federated import FederatedData


def agreement_of(config: Config) -> Agreement:
    """Return what the nodes have agreed on, which validation has seen to."""
    found: Agreement = config.dataset.agreement  # type: ignore[attr-defined]
    return found


def describe_agreement(config: Config) -> dict[str, Any]:
    """Return what stands in partition.json; of labels nobody says how many each client has.

    ``sha256`` is the hash of what was agreed: nobody could compute one over the examples.
    """
    found = agreement_of(config)
    return {
        "partition": config.partition.name,
        "dataset": config.dataset.name,
        "sha256": found.sha256,
        "num_clients": len(found.owners),
        "owners": list(found.owners),
        "num_unassigned": 0,
        "num_examples": list(found.num_train),
        "num_test_examples": list(found.num_test),
        "classes": ["examples"],
        "class_counts": [[count] for count in found.num_train],
        "groups": "",
        "columns": config.dataset.described(),  # type: ignore[attr-defined]
    }


def place_of(config: Config, owner: str) -> int | None:
    """Return which client an owner is; None if it was not among those that agreed."""
    owners = agreement_of(config).owners
    return owners.index(owner) if owner in owners else None


def own_data(config: Config, client: int, path: Path) -> FederatedData:
    """Return the data of a node: one client has examples, the others have none.

    Args:
        config: The experiment.
        client: Whose they are.
        path: Its file or folder.

    Raises:
        FedexpError: If they cannot be read, or are others than were agreed on.
    """
    found = agreement_of(config)
    train, test = config.dataset.read(path, found.owners[client])  # type: ignore[attr-defined]
    num = len(found.owners)
    return FederatedData(
        found.spec,
        train,
        test,
        _all_of(client, num, len(train)),
        _all_of(client, num, len(test)),
        columns=config.dataset.described(),  # type: ignore[attr-defined]
    )


def _all_of(client: int, num_clients: int, count: int) -> Assignment:
    everything, nothing = np.arange(count, dtype=np.int64), np.empty(0, dtype=np.int64)
    return Assignment.of([everything if k == client else nothing for k in range(num_clients)])
