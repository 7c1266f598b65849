"""Read a dataset, deal it to the clients, and say who holds what."""

from __future__ import annotations

from typing import Any

import numpy as np

from fedexp.config.schema import Config
from fedexp.core.options import FedexpError
from fedexp.data.examples import Examples
from fedexp.data.federated import FederatedData
from fedexp.data.loading import load
from fedexp.data.matched_test import match_test
from fedexp.partitions.base import make_partition


def federate(config: Config) -> FederatedData:
    """Read the dataset and deal it to the clients.

    Raises:
        FedexpError: If the dataset is not there and cannot be downloaded, is not what its page says, or
            cannot be dealt as the partition asks.
    """
    train, test = load(config.dataset)
    spec = config.dataset.spec
    for what, examples in (("training", train), ("test", test)):
        if examples.inputs.shape[1:] != spec.shape or examples.targets.max() >= spec.num_classes:
            raise FedexpError(
                f"dataset={config.dataset.name}: the {what} inputs have shape "
                f"{examples.inputs.shape[1:]} and labels up to {examples.targets.max()}; its page says "
                f"{spec.shape} and {spec.num_classes} classes"
            )
    dealt = make_partition(config.partition, train.targets, config.clients.num, config.seed)
    own = match_test(dealt, train.targets, test.targets, spec.num_classes, config.seed)
    seen = config.partition.as_seen((train.inputs, dealt), (test.inputs, own), config.seed)
    if seen is None:
        return FederatedData(spec, train, test, dealt, own)
    return FederatedData(
        spec,
        Examples(seen[0], train.targets),
        test,
        dealt,
        own,
        Examples(seen[1], test.targets),
    )


def describe_partition(config: Config, data: FederatedData) -> dict[str, Any]:
    """Return what stands in partition.json."""
    counts = data.partition.class_counts(data.train.targets, data.spec.num_classes)
    return {
        "partition": config.partition.name,
        "dataset": config.dataset.name,
        "sha256": data.partition.sha256,
        "num_clients": data.partition.num_clients,
        "num_unassigned": unassigned(data),
        "num_examples": data.partition.sizes.tolist(),
        "num_test_examples": data.client_test.sizes.tolist(),
        "classes": list(data.spec.classes),
        "class_counts": counts.tolist(),
        **config.partition.describe(data.partition.num_clients),
    }


def unassigned(data: FederatedData) -> int:
    """Return how many training examples nobody holds."""
    return len(data.train) - len(data.partition.indices)


def client_rows(
    partition: dict[str, Any], scores: dict[int, dict[str, float]], metrics: list[str]
) -> list[dict[str, Any]]:
    """Return a row per client, for tables on dashboards.

    Args:
        partition: What stands in partition.json.
        scores: Partition id -> the client's last numbers on its own test examples.
        metrics: The metrics of the run.

    Returns:
        ``client``, ``images``, ``test_images``, ``labels`` (held, joined by blanks) and every metric
        (None for a client without test examples).
    """
    counts = np.array(partition["class_counts"])
    return [
        {
            "client": client,
            "images": images,
            "test_images": partition["num_test_examples"][client],
            "labels": " ".join(map(str, np.flatnonzero(counts[client]))),
            **{name: scores.get(client, {}).get(name) for name in metrics},
        }
        for client, images in enumerate(partition["num_examples"])
    ]
