from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.folders import federated, write_run

from fedexp.analysis import results
from fedexp.analysis.comparison import compare
from fedexp.analysis.report import render as report
from fedexp.analysis.selection import CHOSEN, LAST, MIXED
from fedexp.analysis.tables import render

HELD_OUT = {
    "dataset": {"validation": 0.1, "validation_by": "server"},
    "stop": {"metric": "accuracy", "patience": None},
}
ON_TEST = {"stop": {"metric": "accuracy", "patience": 3}}


def _validated(folder: Path, seed: int = 0, **best: Any) -> Path:
    rows = [
        *(f"{t},global,test,all,,accuracy,{v}" for t, v in enumerate((0.1, 0.7, 0.9))),
        *(f"{t},global,val,all,,accuracy,{v}" for t, v in enumerate((0.1, 0.8, 0.6))),
        *(f"{t},global,client_test,all,0,accuracy,{v}" for t, v in ((1, 0.65), (2, 0.95))),
        "1,global,client_test,all,1,accuracy,0.75",  # added at the end, for the chosen model
    ]
    found: dict[str, Any] = {
        "selected_on": "validation",
        "selected_by": [],
        "best": {"round": 1, **best},
    }
    return write_run(folder, "fedavg", rows, seed=seed, settings=HELD_OUT, **found)


def test_finals_are_of_the_round_that_validation_selected(tmp_path: Path) -> None:
    _validated(tmp_path / "0")
    found = results.load(tmp_path)
    finals: Any = found.finals.set_index(["split", "client"])["value"].to_dict()
    by = {
        (split, None if str(client) == "<NA>" else client): v
        for (split, client), v in finals.items()
    }
    assert by == {
        ("test", None): 0.7,
        ("val", None): 0.8,
        ("client_test", 0): 0.65,
        ("client_test", 1): 0.75,
    }
    comparison = compare(found)
    assert comparison.table["accuracy"].tolist() == [0.7]
    assert comparison.table["client_mean"].tolist() == [pytest.approx(0.7)]
    assert comparison.moment == CHOSEN
    assert len(found.curves.query("split == 'test'")) == 3  # the learning curve is whole


def test_isolated_clients_have_a_round_each(tmp_path: Path) -> None:
    rows = [
        f"{t},local,{split},all,{client},accuracy,{value}"
        for split, first, second in (("test", (0.2, 0.5, 0.4), (0.3, 0.2, 0.6)),)
        for client, values in enumerate((first, second))
        for t, value in enumerate(values)
    ]
    best = {"round": 2, "rounds": {"0": 1, "1": 2}}
    write_run(
        tmp_path / "0",
        "local_only",
        rows,
        settings=HELD_OUT,
        selected_on="validation",
        selected_by=[],
        best=best,
    )
    finals = results.load(tmp_path).finals.set_index("client")["value"]
    assert finals.to_dict() == {0: 0.5, 1: 0.6}


@pytest.mark.slow  # draws two reports
def test_tables_and_reports_say_on_what_was_selected(tmp_path: Path) -> None:
    _validated(tmp_path / "v" / "0")
    write_run(tmp_path / "t" / "0", "fedavg", federated(0.9), settings=ON_TEST)  # an old run, too
    write_run(tmp_path / "n" / "0", "fedavg", federated(0.9), selected_on="test", selected_by=[])
    write_run(tmp_path / "o" / "0", "fedavg", federated(0.9))
    (tmp_path / "o" / "optimization_results.yaml").write_text("name: optuna\n")
    write_run(tmp_path / "u" / "trials" / "fedavg" / "0", "fedavg", federated(0.9))
    (tmp_path / "u" / "tune.json").write_text("{}")
    expected = {
        "v": ("Selected on validation data: ", CHOSEN),
        "t": ("Selected on test data (stop.patience=3): ", LAST),
        "n": ("No round was selected; ", LAST),
        "o": ("Selected on test data (tuning): ", LAST),
        "u": ("Selected on test data (tuning): ", LAST),
    }
    for name, (start, moment) in expected.items():
        found = results.load(tmp_path / name)
        comparison = compare(found)
        (line,) = comparison.selection
        assert line.startswith(start)
        assert comparison.moment == moment
        assert line.split(":")[0] in render(comparison)
        if name in ("v", "t"):  # figures take their time
            assert line.split(":")[0] in report(found, comparison, "title")


def test_runs_that_selected_otherwise_are_counted(tmp_path: Path) -> None:
    _validated(tmp_path / "0")
    write_run(tmp_path / "1", "fedavg", federated(0.9), seed=1, settings=ON_TEST)
    comparison = compare(results.load(tmp_path))
    assert comparison.moment == MIXED
    assert [line.partition(": ")[0] for line in comparison.selection] == ["1 of 2 runs"] * 2
