"""Read a dataset, deal it to the clients, and say who holds what."""

from __future__ import annotations

from typing import Any

import numpy as np

from fedexp.config.schema import Config
from fedexp.core.options import FedexpError
from fedexp.data.assignment import Assignment, Holders, Indices
from fedexp.data.examples import Examples
from fedexp.data.federated import FederatedData
from fedexp.data.held_out import held_by_clients, held_by_server, hold_out
from fedexp.data.loading import load, spec_problem
from fedexp.federation.populating import populate


def federate(config: Config) -> FederatedData:
    """Read the dataset and deal it to the clients, or let it draw what each of them holds.

    Raises:
        FedexpError: If the dataset is not there and cannot be downloaded, is not what its page says, or
            cannot be dealt as the partition asks.
    """
    if config.dataset.population is not None:
        return populate(config, config.dataset.population)
    train, test = load(config.dataset)
    spec = config.dataset.spec
    for what, examples in (("training", train), ("test", test)):
        problem = spec_problem(config.dataset, spec, examples)
        if problem:
            raise FedexpError(f"dataset={config.dataset.name}: the {what} {problem}")
    groups = config.task.grouping(train.targets, test.targets, spec.classes)
    owners = train.owners if config.partition.by_owner else None
    dealt, server_val = _dealt(config, groups.train, owners)
    if owners is not None and test.owners is not None:
        clients = range(config.clients.num)
        own: Holders = Assignment.of([np.flatnonzero(test.owners == owner) for owner in clients])
    else:
        own = config.partition.hold_test(
            dealt, groups.train, groups.test, len(groups.names), config.seed
        )
    seen = config.partition.as_seen((train.inputs, dealt), (test.inputs, own), config.seed)
    dealt, client_val = _held_back(config, groups.train, dealt)
    as_held = train if seen is None else Examples(seen[0], train.targets)
    fitted = config.dataset.fitted(as_held, test, dealt)
    return FederatedData(
        spec,
        fitted.train,
        fitted.test,
        dealt,
        own,
        None if seen is None else _as_seen(config, as_held, Examples(seen[1], test.targets), dealt),
        server_val,
        client_val,
        fitted.columns,
    )


def _as_seen(config: Config, train: Examples, test: Examples, dealt: Holders) -> Examples:
    """Return test examples as their holders see them."""
    return config.dataset.fitted(train, test, dealt).test


def _dealt(config: Config, labels: Indices, owners: Indices | None) -> tuple[Holders, Indices]:
    """Return who is dealt which training example, and which ones the server holds out before that.

    Args:
        config: The experiment.
        labels: Of all training examples, or their groups.
        owners: Whose each one is, where the partition goes by that.
    """
    dataset, everything = config.dataset, np.arange(len(labels), dtype=np.int64)
    share = held_by_server(dataset.validation, dataset.validation_by)
    left, out = everything, everything[:0]
    if share:
        # Who holds what is the partition's: one with a seed of its own is the same for all seeds.
        seed, whole = config.partition.own_seed(config.seed), Assignment.of([everything])
        kept, held_out = hold_out(whole, labels, share, seed, "server_validation")
        left, out = kept.indices, held_out.indices
    told_by = labels if owners is None else owners
    held = config.partition.hold(told_by[left], config.clients.num, config.seed)
    return held.within(left), out


def _held_back(
    config: Config, labels: Indices, dealt: Holders
) -> tuple[Holders, Assignment | None]:
    """Return what clients train on, and what each holds out of its own.

    Raises:
        FedexpError: If no client has enough examples to hold one out.
    """
    dataset = config.dataset
    share = held_by_clients(dataset.validation, dataset.validation_by)
    if not share:
        return dealt, None
    seed = config.partition.own_seed(config.seed)
    everybody = Assignment.of([dealt.client(client) for client in range(dealt.num_clients)])
    kept, held_out = hold_out(everybody, labels, share, seed, "client_validation")
    if not len(held_out.indices):
        raise FedexpError(
            f"dataset.validation={share:g} is less than one example of every client (the largest has "
            f"{everybody.sizes.max()}): a larger share, fewer clients, or dataset.validation_by=server"
        )
    return kept, held_out


def describe_partition(config: Config, data: FederatedData) -> dict[str, Any]:
    """Return what stands in partition.json."""
    counts, names = group_counts(config, data)
    held, listed = data.partition, list(data.partition.listed)
    held_out: dict[str, Any] = {}
    if config.dataset.validation:
        none = [0] * len(listed)
        own = none if data.client_val is None else data.client_val.sizes.tolist()
        held_out = {
            "num_validation_examples": own,
            "num_server_validation_examples": len(data.server_val),
            "validation_sha256": validation_sha256(data),
        }
    return {
        "partition": config.partition.name,
        "dataset": config.dataset.name,
        "sha256": held.sha256,
        "num_clients": held.num_clients,
        **({"clients": listed} if len(listed) < held.num_clients else {}),
        **held.describe(),
        **({"owners": list(data.spec.owners)} if config.partition.by_owner else {}),
        "num_unassigned": unassigned(data),
        "num_examples": held.sizes.tolist(),
        "num_test_examples": [data.client_test.size(client) for client in listed],
        **held_out,
        "classes": names,
        "class_counts": counts.tolist(),
        **config.task.group_words(),
        **({"columns": list(data.columns)} if data.columns else {}),
        **config.partition.describe(held.num_clients),
    }


def group_counts(config: Config, data: FederatedData) -> tuple[Indices, list[str]]:
    """Return training examples per listed client and label, and the labels' names.

    The counts have the shape (num_listed, labels). Where a task has no labels, of the groups that
    partitions tell apart.
    """
    train, _, names = config.task.grouping(data.train.targets, data.test.targets, data.spec.classes)
    return data.partition.class_counts(train, len(names)), names


def unassigned(data: FederatedData) -> int | None:
    """Return how many training examples nobody holds, neither to train on nor for validation.

    None where there are too many clients to count.
    """
    own = 0 if data.client_val is None else len(data.client_val.indices)
    held = data.partition.num_held
    return None if held is None else len(data.train) - held - own - len(data.server_val)


def validation_sha256(data: FederatedData) -> str:
    """Return the hash of which examples are held out: every client's, then the server's."""
    own = [] if data.client_val is None else data.client_val.parts()
    return Assignment.of([*own, data.server_val]).sha256


def client_rows(
    partition: dict[str, Any], scores: dict[int, dict[str, float]], metrics: list[str]
) -> list[dict[str, Any]]:
    """Return a row per listed client, for tables on dashboards.

    Args:
        partition: What stands in partition.json.
        scores: Partition id -> the client's last numbers on its own test examples.
        metrics: The metrics of the run.

    Returns:
        ``client``, ``images``, ``test_images``, ``labels`` (held, joined by blanks) and every metric
        (None for a client without test examples).
    """
    sizes, tested = partition["num_examples"], partition["num_test_examples"]
    listed = partition.get("clients", range(len(sizes)))
    return [
        {
            "client": client,
            "images": images,
            "test_images": test_images,
            "labels": " ".join(map(str, np.flatnonzero(counts))),
            **{name: scores.get(client, {}).get(name) for name in metrics},
        }
        for client, images, test_images, counts in zip(
            listed, sizes, tested, partition["class_counts"], strict=True
        )
    ]
