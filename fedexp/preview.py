"""Who holds what, without training: a table on the terminal, partition.json and partition.png."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fedexp.analysis.grid import written
from fedexp.config.schema import Config, config_bytes
from fedexp.core.files import json_bytes, unwritable, write_whole
from fedexp.core.output import say
from fedexp.core.pictures import drawn, partition_png
from fedexp.core.terminal import fitted, printable, width
from fedexp.data.federated import FederatedData
from fedexp.federation.dealing import (
    describe_partition,
    federate,
    group_counts,
    unassigned,
)

MAX_CLIENT_ROWS = 20
MAX_LABEL_COLUMNS = 20

_HEADINGS = ("client", "examples", "test examples")
_SHORT = ("client", "train", "test")


def show_partition(config: Config, folder: Path) -> None:
    """Deal the examples, print who holds what and write config.yaml, partition.json and partition.png.

    There is no summary.json, so that what reads finished runs passes the folder by.

    Raises:
        FedexpError: If the examples cannot be dealt as the partition asks, or the folder cannot be
            written.
    """
    data = federate(config)
    counts, names = group_counts(config, data)
    pictures, problems = drawn(
        {"partition": partial(partition_png, counts, names, config.task.group, config.clients.num)}
    )
    with unwritable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "config.yaml", config_bytes(config))
        write_whole(folder / "partition.json", json_bytes(describe_partition(config, data)))
        for name, picture in pictures.items():
            write_whole(folder / f"{name}.png", picture)
    say(printable(partition_table(config, data)))
    last = "next: the same command without mode=partition trains on it"
    for line in (*problems, os.path.relpath(folder), last):
        say(printable(fitted(f"  {line}")))


def partition_table(config: Config, data: FederatedData) -> str:
    """Render a row per client (the first 20) and what can be said of them all.

    Columns: client, its training and test examples, then training examples by label (in a regression by
    tenth of the targets); with more than 20 labels, how many labels the client holds.
    """
    counts, names = group_counts(config, data)
    held = (counts > 0).sum(axis=1)
    group = config.task.group
    wide = len(names) > MAX_LABEL_COLUMNS
    labels = ["labels"] if wide else _headings(config, names)
    headings, rows = (*_HEADINGS, *labels), []
    for row, client in enumerate(data.partition.listed[:MAX_CLIENT_ROWS]):
        numbers = [held[row]] if wide else counts[row].tolist()[: len(labels)]
        sizes = data.partition.size(client), data.client_test.size(client)
        rows.append(dict(zip(headings, map(str, (client, *sizes, *numbers)), strict=True)))
    table = written(rows, "table", width())
    if len(table.splitlines()) > len(rows) + 2:  # broken into several: shorter headings may fit
        short = [dict(zip((*_SHORT, *labels), row.values(), strict=True)) for row in rows]
        table = written(short, "table", width())
    lines = [
        fitted(
            f"{config.name}: partition={config.partition.name} dataset={config.dataset.name} "
            f"clients={config.clients.num} seed={config.seed}"
        ),
        "",
        table,
        "",
    ]
    if config.clients.num > len(rows):
        lines.append(f"  ... and {config.clients.num - len(rows):,} more clients")
    if config.partition.by_owner:
        named = [f"{k} {name}" for k, name in enumerate(data.spec.owners[:MAX_CLIENT_ROWS])]
        lines.append(f"  clients: {', '.join(named)}{', ...' * (len(counts) > len(named))}")
    if len(counts) < config.clients.num:
        lines.append(
            f"  what follows is of {len(counts):,} clients, drawn at random (partition.panel)"
        )
    lines += [
        f"  examples per client: {_spread(data.partition.sizes)}",
        *([f"  {group}s per client: {_spread(held)} of {len(names)}"] if group else []),
        *_held_out(data),
        *_unassigned(data),
        f"  sha256 {data.partition.sha256}",
    ]
    return "\n".join(lines)


def _unassigned(data: FederatedData) -> list[str]:
    number = unassigned(data)
    if number is None:
        return []
    return [f"  {number} of {len(data.train)} training examples belong to no client"]


def _held_out(data: FederatedData) -> list[str]:
    """Say who holds examples out for validation, where somebody does."""
    own = None if data.client_val is None else data.client_val.sizes
    lines = [f"  validation examples of the server: {len(data.server_val)}"]
    lines = lines if len(data.server_val) else []
    return lines if own is None else [*lines, f"  validation examples per client: {_spread(own)}"]


def _headings(config: Config, names: list[str]) -> list[str]:
    task = config.task
    if not task.group:
        return []
    return [str(label) for label in range(len(names))] if task.has_confusion else names


def _spread(values: Any) -> str:
    return f"min {values.min()}, median {np.median(values):g}, max {values.max()}"
