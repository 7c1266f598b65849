"""Run folders with numbers chosen by tests."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

HEADER = "round,model,split,subset,client,metric,value"


def write_run(
    folder: Path,
    strategy: str,
    rows: Iterable[str],
    *,
    seed: int = 0,
    partition: str = "p",
    settings: Mapping[str, Any] | None = None,
    class_counts: list[list[int]] | None = None,
    confusion: Mapping[int | None, list[list[int]]] | None = None,
    **summary: Any,
) -> Path:
    """Write a run's folder; `settings` go into config.yaml as they are."""
    folder.mkdir(parents=True)
    head = {
        **{"status": "completed", "strategy": strategy, "seed": seed, "rounds": 2, "seconds": 1.5},
        **{"partition_sha256": partition, "model_sha256": f"{folder.name}"},
    }
    (folder / "summary.json").write_text(json.dumps({**head, **summary}))
    (folder / "metrics.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    config = {"seed": seed, "strategy": {"name": strategy}, **(settings or {})}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    counts = class_counts or [[1, 1], [1, 1]]
    (folder / "partition.json").write_text(json.dumps({"class_counts": counts}))
    default: Mapping[int | None, list[list[int]]] = (
        {k: [[1, 0], [0, 1]] for k in range(len(counts))}
        if strategy == "local_only"
        else {None: [[1, 0], [0, 1]]}
    )
    matrices = confusion or default
    num_classes = len(next(iter(matrices.values())))
    lines = [",".join(["client", "true_label", *map(str, range(num_classes))])]
    for client, matrix in matrices.items():
        name = "" if client is None else client
        lines += [",".join(map(str, [name, label, *row])) for label, row in enumerate(matrix)]
    (folder / "confusion.csv").write_text("\n".join(lines) + "\n")
    return folder


def federated(
    final: float, on_subset: float = 0.5, own: Iterable[float] = (), loss: float = 0.5
) -> list[str]:
    """Return the metrics of a federated run of two rounds; `own` is what clients measure at its end."""
    return [
        "0,global,test,all,,accuracy,0.125",
        "1,global,test,all,,accuracy,0.99",  # the best round must not be taken for the last
        f"2,global,test,all,,accuracy,{final}",
        f"2,global,test,1-3-7,,accuracy,{on_subset}",
        f"2,global,test,all,,loss,{loss}",
        "1,local,train,all,,loss,3.0",
        "1,global,train,all,,bytes_down,100",
        "2,global,client_test,all,,accuracy,0.875",  # the clients' mean is no client's
        *(f"2,global,client_test,all,{k},accuracy,{value}" for k, value in enumerate(own)),
    ]


def alone(*finals: float, own: Iterable[float] = ()) -> list[str]:
    """Return the metrics of isolated clients; half as good on the subset."""
    tested = [
        f"{server_round},local,test,{subset},{client},accuracy,{value * share}"
        for server_round, share in ((0, 0.1), (2, 1.0))
        for client, value in enumerate(finals)
        for subset, value in (("all", value), ("1-3-7", value / 2))
    ]
    return tested + [f"2,local,client_test,all,{k},accuracy,{value}" for k, value in enumerate(own)]
