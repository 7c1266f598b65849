"""Rules between a partition's options, the clients and the dataset: a line for what is impossible.

What only the labels themselves can tell is left to :func:`fedexp.partitions.partitioners.make_partition`.
"""

from __future__ import annotations

from collections.abc import Iterator

from fedexp.config.schema import Config
from fedexp.partitions.options import (
    ClassesPartition,
    DirichletPartition,
    ExcludePartition,
    FlwrDatasetsPartition,
    IidPartition,
    QuantityPartition,
    ShardsPartition,
)


def partition_errors(config: Config) -> Iterator[str]:
    """Yield a line for every rule that the partition breaks."""
    partition, num_clients, spec = config.partition, config.clients.num, config.dataset.spec
    if isinstance(partition, IidPartition) and partition.samples_per_client is not None:
        yield from _enough_images(config, "samples_per_client", partition.samples_per_client)
    if isinstance(partition, ExcludePartition):
        yield from _exclude_errors(partition, num_clients, spec.num_classes)
    if isinstance(partition, DirichletPartition | QuantityPartition):
        yield from _enough_images(config, "min_size", partition.min_size)
    if isinstance(partition, ShardsPartition):
        yield from _enough_images(config, "shards_per_client", partition.shards_per_client)
    if isinstance(partition, ClassesPartition) and partition.classes_per_client > spec.num_classes:
        yield (
            f"partition.classes_per_client must be <= {spec.num_classes}, the labels of dataset="
            f"{config.dataset.name}, got {partition.classes_per_client}"
        )
    if isinstance(partition, FlwrDatasetsPartition):
        # Imported here because it takes a second, where it is installed.
        from fedexp.partitions.flwr_datasets import option_errors

        yield from option_errors(partition)


def _enough_images(config: Config, option: str, per_client: int) -> Iterator[str]:
    """Every client needs ``per_client`` images (a shard is one image at least)."""
    num_clients, num_train = config.clients.num, config.dataset.spec.num_train
    most = num_train // num_clients
    # With more clients than images nothing fits; that has its own line.
    if most and per_client > most:
        yield (
            f"partition.{option} must be <= {most} for clients.num={num_clients} on "
            f"{config.dataset.name} ({num_train} training images), got {per_client}"
        )


def _exclude_errors(
    partition: ExcludePartition, num_clients: int, num_classes: int
) -> Iterator[str]:
    if partition.seed is not None and partition.seed >= 2**32:
        yield f"partition.seed must be < {2**32} (torch's random_split), got {partition.seed}"
    if len(partition.exclude) != num_clients:
        yield (
            f"partition.exclude must hold one list of labels per client: clients.num={num_clients}, "
            f"got {len(partition.exclude)} lists (another partition, such as partition=iid, fits "
            "any number of clients)"
        )
    for client, labels in enumerate(partition.exclude):
        if not set(labels) <= set(range(num_classes)):
            yield (
                f"partition.exclude[{client}] must hold labels from 0 to {num_classes - 1}, "
                f"got {list(labels)}"
            )
        elif set(labels) == set(range(num_classes)):
            yield f"partition.exclude[{client}] leaves the client without a single label"
