"""Who holds what, without training: a table on the terminal, partition.json and partition.png."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from fedexp.config.schema import Config
from fedexp.core.pictures import partition_png
from fedexp.data.federated import FederatedData, federate
from fedexp.partitions.feature_noise import noise_levels
from fedexp.partitions.options import FeatureNoisePartition
from fedexp.tracking.run_folder import config_bytes, json_bytes, write_whole

MAX_CLIENT_ROWS = 20
MAX_LABEL_COLUMNS = 20


def show_partition(config: Config, run_dir: Path) -> None:
    """Deal the images, print who holds what and write config.yaml, partition.json and partition.png.

    There is no summary.json, so that what reads finished runs passes the folder by.

    Raises:
        FedexpError: If the images cannot be dealt as the partition asks.
    """
    data = federate(config)
    counts = data.partition.class_counts(data.train.labels, data.spec.num_classes)
    run_dir.mkdir(parents=True, exist_ok=True)
    write_whole(run_dir / "config.yaml", config_bytes(config))
    write_whole(run_dir / "partition.json", json_bytes(describe_partition(config, data)))
    write_whole(run_dir / "partition.png", partition_png(counts, data.spec.classes))
    print(partition_table(config, data))
    print(f"  {os.path.relpath(run_dir)}")


def describe_partition(config: Config, data: FederatedData) -> dict[str, Any]:
    """Return what stands in partition.json; ``noise_std`` only where clients see noise."""
    counts = data.partition.class_counts(data.train.labels, data.spec.num_classes)
    found = {
        "partition": config.partition.name,
        "dataset": config.dataset.name,
        "sha256": data.partition.sha256,
        "num_clients": data.partition.num_clients,
        "num_unassigned": _unassigned(data),
        "num_examples": data.partition.sizes.tolist(),
        "num_test_examples": data.client_test.sizes.tolist(),
        "classes": list(data.spec.classes),
        "class_counts": counts.tolist(),
    }
    if isinstance(config.partition, FeatureNoisePartition):
        found["noise_std"] = noise_levels(config.partition, data.partition.num_clients)
    return found


def _unassigned(data: FederatedData) -> int:
    return len(data.train.labels) - len(data.partition.indices)


def partition_table(config: Config, data: FederatedData) -> str:
    """Render a row per client (the first 20) and what can be said of them all.

    Columns: client, images, test images, then images per label; with more than 20 labels, how many
    labels the client holds.
    """
    counts = data.partition.class_counts(data.train.labels, data.spec.num_classes)
    held = (counts > 0).sum(axis=1)
    wide = data.spec.num_classes > MAX_LABEL_COLUMNS
    table = Table(box=box.SIMPLE_HEAD)
    labels = ["labels"] if wide else [str(label) for label in range(data.spec.num_classes)]
    for column in ("client", "images", "test images", *labels):
        table.add_column(column, justify="right")
    for client in range(min(MAX_CLIENT_ROWS, len(counts))):
        numbers = [held[client]] if wide else counts[client].tolist()
        sizes = data.partition.sizes[client], data.client_test.sizes[client]
        table.add_row(*map(str, (client, *sizes, *numbers)))
    buffer = io.StringIO()
    Console(file=buffer, width=300).print(table)
    lines = [
        f"{config.name}: partition={config.partition.name} dataset={config.dataset.name} "
        f"clients={config.clients.num} seed={config.seed}",
        *(line.rstrip() for line in buffer.getvalue().rstrip().splitlines()),
    ]
    if len(counts) > MAX_CLIENT_ROWS:
        lines.append(f"  ... and {len(counts) - MAX_CLIENT_ROWS} more clients")
    lines += [
        f"  images per client: {_spread(data.partition.sizes)}",
        f"  labels per client: {_spread(held)} of {data.spec.num_classes}",
        f"  {_unassigned(data)} of {len(data.train.labels)} training images belong to no client",
        f"  sha256 {data.partition.sha256}",
    ]
    return "\n".join(lines)


def _spread(values: Any) -> str:
    return f"min {values.min()}, median {np.median(values):g}, max {values.max()}"
