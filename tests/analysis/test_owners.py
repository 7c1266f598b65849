"""Clients that the data name are told one by one, each on test examples of its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.folders import alone, federated, write_run

from fedexp.analysis.comparison import compare
from fedexp.analysis.results import load
from fedexp.analysis.tables import render, tables

HEADING = "Every owner on test examples of its own"


def _name(folder: Path, owners: Sequence[str], counts: Sequence[int]) -> None:
    path = folder / "partition.json"
    told = json.loads(path.read_text()) | {"owners": owners, "num_test_examples": counts}
    path.write_text(json.dumps(told))


def _run(folder: Path) -> None:
    own = ["2,global,client_test,all,0,auroc,0.75", "2,global,test,all,,auroc,0.5"]
    runs = [
        write_run(folder / "0", "fedavg", [*federated(0.9, own=(0.8,)), *own], seed=0),
        write_run(folder / "1", "fedavg", federated(0.9, own=(0.6,)), seed=1),
        write_run(folder / "2", "local_only", alone(0.5, 0.5, own=(0.4, 0.3))),
    ]
    for run in runs:
        _name(run, ["north", "river"], [72, 0])


def test_every_owner_has_a_row_for_every_strategy(tmp_path: Path) -> None:
    _run(tmp_path)
    found = compare(load(tmp_path))
    own = found.own.set_index(["owner", "row"])
    assert own.loc[("north", "fedavg"), "accuracy"] == pytest.approx(0.7)
    assert own.loc[("north", "fedavg"), "auroc"] == 0.75
    assert own["accuracy"].isna().tolist() == [False, True, False, False]
    assert own.loc[("river", "local_only"), "accuracy"] == 0.3
    (table,) = [t for t in tables(found) if t.heading.startswith(HEADING)]
    assert [(row["owner"], row["strategy"], row["its accuracy"]) for row in table.rows] == [
        *(("north", "fedavg", "0.700"), ("north", "local_only", "0.400")),
        *(("river", "fedavg", ""), ("river", "local_only", "0.300")),
    ]
    assert table.rows[0]["tested on"] == "72"
    assert HEADING in render(found)


def test_clients_without_names_are_not_told_one_by_one(tmp_path: Path) -> None:
    write_run(tmp_path / "0", "fedavg", federated(0.9, own=(0.8, 0.7)))
    found = compare(load(tmp_path))
    assert found.own.empty
    assert not [t for t in tables(found) if t.heading.startswith(HEADING)]
