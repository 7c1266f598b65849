"""What a run is stands in summary.json; folders from before it did are still read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support.folders import alone, federated, write_run

from fedexp.analysis import figures, report
from fedexp.analysis.comparison import compare
from fedexp.analysis.programs import compare_program
from fedexp.analysis.results import load
from fedexp.analysis.rows import Rows
from fedexp.analysis.tables import render

COUNTS = [[0, 5], [5, 0]]
BEFORE: dict[str, Any] = {
    "isolated_rounds": None,
    "objective": "accuracy",
    "dataset": {"name": "mnist5k", "root": "data"},
    "clients": {"num": 2, "byzantine": {"fraction": 0.0, "kind": "label_flip", "scale": 1.0}},
}
"""Some of what config.yaml held before metrics, attacks and kinds could be chosen."""

NOW: dict[str, Any] = {
    **BEFORE,
    "metrics": ["accuracy", "loss"],
    "clients": {
        **BEFORE["clients"],
        "byzantine": {**BEFORE["clients"]["byzantine"], "options": {}},
    },
}


def _three(
    folder: Path,
    seed: int,
    names: tuple[str, str, str],
    settings: Mapping[str, Any],
    kinds: tuple[str, ...] = (),
) -> None:
    """Write a federated run, isolated clients and a centralized run, whatever they are called."""
    rows = (
        federated(0.75, own=(0.5, 1.0)),
        alone(0.25, 0.5, own=(0.75, 0.75)),
        federated(0.875, own=(0.75, 1.0)),
    )
    for number, (name, metrics) in enumerate(zip(names, rows, strict=True)):
        owners: list[int | None] = [0, 1] if number == 1 else [None]
        write_run(
            folder / f"{number}-{name}-s{seed}",
            name,
            metrics,
            seed=seed,
            settings=settings,
            class_counts=COUNTS,
            confusion={owner: [[1, 0], [0, 1]] for owner in owners},
            **({"kind": kinds[number]} if kinds else {}),
        )


@pytest.fixture
def before(tmp_path: Path) -> Path:
    """Return a multirun as it was left before summary.json said what a run is."""
    folder = tmp_path / "before"
    _three(folder, 0, ("fedavg", "local_only", "centralized"), BEFORE)
    return folder


def test_before_it_was_written_down_the_strategy_says_what_a_run_is(before: Path) -> None:
    found = load(before)
    assert found.runs["kind"].tolist() == ["federated", "isolated", "centralized"]
    table = compare(found).table.set_index("row")
    assert table.loc["fedavg", "gain"] == 0.375
    assert table.loc["fedavg", "gain_best"] == 0.25
    assert table.loc["fedavg", "to_centralized"] == -0.125
    assert table.loc["local_only", "to_centralized"] == -0.5


def test_compare_and_report_read_a_folder_from_before(
    before: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit) as ended:
        compare_program([str(before)])
    assert ended.value.code == 0
    found = load(before)
    text = f"{render(compare(found))}\n\nnext: fedexp report {before}\n"
    assert capsys.readouterr() == (text, "")
    monkeypatch.setattr(figures, "every", lambda *_: iter(()))
    page = report.render(found, compare(found), "before")
    assert "on one seed" in page  # as far as its title


def test_runs_from_before_and_after_make_one_row(before: Path, tmp_path: Path) -> None:
    names, kinds = ("fedavg", "local_only", "centralized"), ("federated", "isolated", "centralized")
    _three(tmp_path / "now", 1, names, NOW, kinds)
    found = compare(load(before, tmp_path / "now"))
    assert found.table["row"].tolist() == list(names)
    assert found.table["runs"].tolist() == [2, 2, 2]
    assert found.table["gain"].tolist()[0] == 0.375
    assert found.notes == []


def test_what_is_written_down_counts_whatever_the_strategy_is_called(tmp_path: Path) -> None:
    names, kinds = ("mine", "solo", "pooled"), ("federated", "isolated", "centralized")
    _three(tmp_path, 0, names, NOW, kinds)
    found = load(tmp_path)
    comparison = compare(found, baseline="mine")
    rows = Rows(found, comparison)
    assert (rows.federated, rows.isolated, rows.centralized) == (["mine"], ["solo"], ["pooled"])
    table = comparison.table.set_index("row")
    assert table.loc["mine", "gain"] == 0.375
    assert table.loc["mine", "to_centralized"] == -0.125
    text = render(comparison)
    assert "  best client (1)" in text
    (legend,) = figures.learning_curves(found, comparison).legends
    assert {text.get_text() for text in legend.get_texts()} == set(names)


def test_a_federated_strategy_that_is_called_as_isolated_clients_are_is_federated(
    tmp_path: Path,
) -> None:
    write_run(
        tmp_path / "0",
        "local_only",
        federated(0.5),
        confusion={None: [[1, 0], [0, 1]]},
        kind="federated",
    )
    found = load(tmp_path)
    assert found.runs["kind"].tolist() == ["federated"]
    assert Rows(found, compare(found)).isolated == []
