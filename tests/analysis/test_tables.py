from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from support.folders import alone, federated, write_run

from fedexp.analysis.comparison import compare
from fedexp.analysis.programs import compare_program
from fedexp.analysis.results import load
from fedexp.analysis.tables import closing_table, render, tables

COMPARE = Path(__file__).parents[2] / "scripts" / "compare.py"


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    counts = [[0, 5], [5, 0]]
    for seed, final in enumerate((0.75, 0.5, 0.625)):
        write_run(
            tmp_path / f"{2 * seed}",
            "fedavg",
            federated(final, own=(0.5, 1.0)),
            seed=seed,
            class_counts=counts,
        )
        write_run(
            tmp_path / f"{2 * seed + 1}",
            "local_only",
            alone(0.25, 0.5, own=(0.75, 0.75)),
            seed=seed,
            class_counts=counts,
        )
    return tmp_path


def _cells(text: str, name: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if line.strip().startswith(name)]


def test_the_tables_hold_the_numbers(sweep: Path) -> None:
    text = render(compare(load(sweep)))
    accuracy, costs, clients, fairness, *each = _cells(text, "fedavg")
    # Three seeds: standard deviation 0.125, t 4.302653, half interval 0.3105.
    assert accuracy == [
        *["fedavg", "3", "0.625", "±", "0.311", "0.500", "±", "0.000"],
        *["0.500", "1"],
    ]
    # Gain 0.625 - 0.375, over best 0.625 - 0.5.
    expected = ["fedavg", "+0.250", "±", "0.311", "+0.125", "+0.000", "±", "0.000"]
    assert costs == ["fedavg", "1.5"]
    assert clients == [*expected, *["+0.000", "±", "0.000", "1", "of", "2"]]
    assert fairness == ["fedavg", "0.750", "0.250", "0.500"]
    assert each == [
        ["fedavg", "0", "+0.375", "-0.250", "+0.000"],
        ["fedavg", "1", "+0.125", "+0.250", "+0.000"],
    ]
    assert _cells(text, "best client") == [["best", "client", "(1)", "0.500", "0.250"]]
    assert _cells(text, "client 0") == [["client", "0", "0.250", "0.125"]]
    assert "rounds to 0.59" in text  # 95 % of 0.625
    # Isolated clients against fedavg: -0.375, -0.125, -0.25 as in test_statistics.py.
    assert _cells(text, "local_only")[4][:6] == ["local_only", "3", "-0.250", "±", "0.311", "0.074"]
    assert "Accuracy compared with fedavg of equal other settings, seed by seed" in text


def test_columns_that_say_nothing_are_left_out(tmp_path: Path) -> None:
    write_run(tmp_path / "0", "fedavg", federated(0.75))
    text = render(compare(load(tmp_path)))
    for word in ("gain", "centralized", "worse", "±", "  p"):
        assert word not in text.replace("gain over isolated training", "")


def test_a_small_p_is_not_nothing(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path / f"{seed}", "fedavg", federated(0.5), seed=seed)
        write_run(tmp_path / f"{seed}a", "fedadam", federated(0.75), seed=seed)  # always 0.25 more
    *_, tested = _cells(render(compare(load(tmp_path))), "fedadam")
    expected = ["fedadam", "3", "+0.250", "±", "0.000", "<", "0.001", "0.000"]
    assert tested == expected


def test_clients_without_test_images_are_not_counted_as_well_off(tmp_path: Path) -> None:
    write_run(tmp_path / "0", "fedavg", federated(0.75, own=(0.5,)))
    write_run(tmp_path / "1", "local_only", alone(0.25, 0.5, own=(0.75,)))
    assert "1 of 1" in render(compare(load(tmp_path)))  # client 1 has none to lose on
    write_run(tmp_path / "none" / "0", "fedavg", federated(0.75))
    write_run(tmp_path / "none" / "1", "local_only", alone(0.25, 0.5))
    assert "worse off" not in _client_table(render(compare(load(tmp_path / "none"))))


def _client_table(text: str) -> str:
    return text[text.index("Clients: ") : text.index("Gain of every client")]


def test_many_clients_are_not_listed_one_by_one(tmp_path: Path) -> None:
    write_run(tmp_path / "0", "local_only", alone(*[0.5] * 10, 0.75), class_counts=[[1, 1]] * 11)
    write_run(tmp_path / "1", "fedavg", federated(0.5), class_counts=[[1, 1]] * 11)
    text = render(compare(load(tmp_path)))
    assert "best client (10)" in text
    assert "Gain of every client" in text
    for seed in range(3):
        name = tmp_path / f"s{seed}"
        counts = [[1, 1]] * 11
        write_run(name, f"fed{seed}", federated(0.5), class_counts=counts)
    text = render(compare(load(tmp_path)))  # 44 rows of gains
    assert "client 1 " not in text
    assert "Gain of every client" not in text
    assert "The gain of every client: fedexp compare FOLDER --clients" in text


def test_markdown_and_latex_hold_the_same_cells(sweep: Path) -> None:
    found = compare(load(sweep))
    markdown, latex = render(found, "markdown"), render(found, "latex")
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    cells = [cell.strip() for cell in rows[2].strip("|").split("|")]
    assert cells == ["fedavg", "3", "0.625 ± 0.311", "0.500 ± 0.000", "0.500", "1", "1.5"]
    assert "local\\_only" in latex
    # What is not a table is a comment, so that a document can take in the whole.
    outside = [
        line
        for block in latex.split("\\end{tabular}")
        for line in block.split("\\begin{tabular}")[0].splitlines()
        if line
    ]
    assert outside
    assert all(line.startswith("%") for line in outside)


def test_csv_is_in_full_precision(sweep: Path) -> None:
    found = compare(load(sweep))
    rows = list(csv.DictReader(io.StringIO(render(found, "csv"))))
    assert [row["row"] for row in rows] == ["fedavg", "local_only"]
    assert float(rows[0]["accuracy/ci"]) == found.table.loc[0, "accuracy/ci"]


def test_the_closing_table_names_what_did_not_complete(sweep: Path) -> None:
    text, all_completed = closing_table(sweep)
    assert all_completed
    table = render(compare(load(sweep)))
    assert text == f"{sweep}\n\n{table}\n\nnext: fedexp report {sweep}"
    write_run(sweep / "9", "fedavg", [], seed=9, status="failed", error="OSError: disk full")
    text, all_completed = closing_table(sweep)
    assert not all_completed
    assert f"note: failed: {sweep / '9'}: OSError: disk full" in " ".join(text.split())


def test_a_sweep_that_was_stopped_ends_with_how_it_goes_on(sweep: Path) -> None:
    write_run(sweep / "9", "fedavg", [], seed=9, status="interrupted")
    assert closing_table(sweep)[0].endswith(f"next: fedexp report {sweep}")
    (sweep / "sweep.json").write_text("{}")
    assert closing_table(sweep)[0].endswith(f"next: fedexp resume {sweep}")


def test_only_failed_runs_make_no_table(tmp_path: Path) -> None:
    write_run(tmp_path / "0", "fedavg", [], status="failed", error="why")
    assert closing_table(tmp_path) == (f"failed: {tmp_path / '0'}: why", False)


def test_a_folder_without_runs_makes_no_table(tmp_path: Path) -> None:
    text, all_completed = closing_table(tmp_path)
    assert not all_completed
    assert text == f"{tmp_path}: no run here (a run's folder holds summary.json)"


def _compare(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", str(COMPARE), *words]
    env = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


def test_an_output_in_ascii_has_the_table_all_the_same(sweep: Path) -> None:
    found = _compare(str(sweep), PYTHONIOENCODING="ascii", COLUMNS="80")
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.isascii()
    assert "fedavg" in found.stdout
    table = render(compare(load(sweep))).replace(" ± ", " +-")
    assert found.stdout == f"{table}\n\nnext: fedexp report {sweep}\n"


@pytest.mark.slow
def test_the_script_compares_by_what_it_is_told(sweep: Path) -> None:
    found = _compare(str(sweep), "--target", "0.7", "--baseline", "local_only")
    assert (found.returncode, found.stderr) == (0, "")
    assert "rounds to 0.7:" in found.stdout
    assert "compared with local_only" in found.stdout
    clients = _compare(str(sweep), "--clients")
    rows = list(csv.DictReader(io.StringIO(clients.stdout)))
    assert len(rows) == 6
    assert rows[0]["gain_own"] == "-0.25"


@pytest.mark.slow  # draws every figure: 5 s
def test_the_script_writes_figures_and_says_which(sweep: Path, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "figures"
    found = _compare(str(sweep), "--figures", str(folder), "--format", "csv")
    assert found.returncode == 0
    assert len(list(csv.DictReader(io.StringIO(found.stdout)))) == 2  # numbers alone
    told = [line.removeprefix("wrote ") for line in found.stderr.splitlines()]
    assert sorted(told) == sorted(str(path) for path in folder.iterdir())
    assert {f"{folder / 'gain_bars'}.png", f"{folder / 'learning_curves'}.svg"} < set(told)


@pytest.mark.slow
def test_a_file_is_no_folder_for_figures(sweep: Path) -> None:
    file = sweep / "0" / "metrics.csv"
    found = _compare(str(sweep), "--figures", str(file))
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr == f"fedexp compare: --figures {file}: File exists; it must be a folder\n"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (
            ["--by", "nonsense"],
            "fedexp compare: --by nonsense: no run has this option; it must be",
        ),
        (["--target", "2"], "argument --target: must be > 0 and <= 1, got 2"),
    ],
)
def test_bad_words_are_one_line_and_exit_code_2(sweep: Path, words: list[str], error: str) -> None:
    found = _compare(str(sweep), *words)
    assert (found.returncode, found.stdout) == (2, "")
    assert error in found.stderr.splitlines()[-1]


def test_a_reader_that_stops_reading_gets_no_traceback(sweep: Path) -> None:
    words = [sys.executable, "-u", str(COMPARE), str(sweep), "--clients"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""


def test_nothing_to_compare_is_exit_code_2(tmp_path: Path) -> None:
    found = _compare(str(tmp_path))
    assert (found.returncode, found.stderr.count("\n")) == (2, 1)
    assert found.stderr.startswith(f"fedexp compare: {tmp_path}: no run here")


def test_an_incomplete_run_is_exit_code_1(sweep: Path) -> None:
    write_run(sweep / "9", "fedavg", [], seed=9, status="interrupted")
    found = _compare(str(sweep))
    assert (found.returncode, found.stderr) == (1, "")
    assert f"interrupted: {sweep / '9'}" in " ".join(found.stdout.split())


def _measured(name: str, final: float, own: tuple[float, float]) -> list[str]:
    """Return rows of one more metric."""
    return [
        f"2,global,test,all,,{name},{final}",
        f"2,global,test,1-3-7,,{name},0.0625",
        f"2,global,client_test,all,,{name},0.03125",  # weighted by examples
        *(f"2,global,client_test,all,{k},{name},{value}" for k, value in enumerate(own)),
    ]


def test_other_metrics_have_columns(tmp_path: Path) -> None:
    for seed, final in enumerate((0.25, 0.75)):
        rows = [*federated(0.5), *_measured("macro_f1", final, (0.125, 0.375))]
        write_run(tmp_path / f"{seed}", "fedavg", rows, seed=seed)
    write_run(tmp_path / "2", "fedadam", federated(0.5))  # measures accuracy and loss alone
    found = compare(load(tmp_path))
    assert found.metrics == ["macro_f1"]
    row = found.table.set_index("row").loc["fedavg"]
    assert (row["macro_f1"], row["macro_f1/1-3-7"], row["client_mean/macro_f1"]) == (
        *(0.5, 0.0625),
        0.25,
    )
    accuracy, clients, *_ = tables(found)
    assert list(accuracy.rows[0])[:5] == ["strategy", "runs", "accuracy", "loss", "macro_f1"]
    cells = {cells["strategy"]: cells["macro_f1"] for cells in accuracy.rows}
    assert cells == {"fedavg": "0.500", "fedadam": ""}  # which measures accuracy and loss alone
    own = {cells["strategy"]: cells["own macro_f1"] for cells in clients.rows}
    assert own == {"fedavg": "0.250", "fedadam": ""}


def test_isolated_clients_have_other_metrics_as_a_mean(tmp_path: Path) -> None:
    rows = [f"2,local,test,all,{k},macro_f1,{value}" for k, value in enumerate((0.25, 0.75))]
    write_run(tmp_path / "0", "local_only", [*alone(0.25, 0.5), *rows])
    found = compare(load(tmp_path))
    assert found.table["macro_f1"].tolist() == [0.5]
    assert _cells(render(found), "local_only")[0][:5] == [
        *("local_only", "1", "0.375", "0.500"),
        "0.188",
    ]


def test_a_metric_may_be_called_as_columns_begin(tmp_path: Path) -> None:
    rows = [*federated(0.5), *_measured("client_gap", 0.875, (0.125, 0.375))]
    write_run(tmp_path / "0", "fedavg", rows)
    accuracy, *_ = tables(compare(load(tmp_path)))
    assert accuracy.rows[0]["client_gap"] == "0.875"


@pytest.mark.parametrize("name", ["runs", "seconds", "gain", "to_target", "clients", "p_value"])
def test_a_metric_that_is_called_as_a_column_takes_nothing_from_it(
    tmp_path: Path, name: str
) -> None:
    rows = [*federated(0.5), *_measured(name, 0.875, (0.125, 0.375))]
    write_run(tmp_path / "measured" / "0", "fedavg", rows)
    write_run(tmp_path / "plain" / "0", "fedavg", federated(0.5))
    found, plain = (compare(load(tmp_path / folder)) for folder in ("measured", "plain"))
    pd.testing.assert_frame_equal(found.table[list(plain.table)], plain.table)
    assert render(found)


def test_a_baseline_that_no_row_has_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "0", "fedavg", federated(0.75))
    write_run(tmp_path / "1", "fedadam", federated(0.5))
    with pytest.raises(SystemExit) as ended:
        compare_program([str(tmp_path), "--baseline", "fedprox"])
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.rstrip().endswith("it must be one of fedavg, fedadam")


def test_an_unknown_factor_names_the_varied_options_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [
        {"training": {f"option_{k}": k for k in range(30)} | {"momentum": momentum}}
        for momentum in (0.0, 0.9)
    ]
    for number, told in enumerate(settings):
        write_run(tmp_path / str(number), "fedavg", federated(0.75), settings=told)
    with pytest.raises(SystemExit):
        compare_program([str(tmp_path), "--by", "typo"])
    listed = capsys.readouterr().err.partition("must be one of ")[2].split(", ")
    assert listed[:2] == ["strategy", "training.momentum"]
    assert len(listed) == 11


def test_runs_that_only_names_tell_apart_are_two_rows(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_run(tmp_path / name / "0", "fedavg", federated(0.75), settings={"name": name})
        write_run(tmp_path / name / "1", "fedadam", federated(0.5), settings={"name": name})
    found = compare(load(tmp_path))
    assert found.factors == ["strategy", "name"]
    assert sorted(found.table["row"]) == [
        *("fedadam name=a", "fedadam name=b", "fedavg name=a", "fedavg name=b")
    ]
    write_run(tmp_path / "c", "fedavg", federated(0.75), seed=1, settings={"name": "c"})
    one = compare(load(tmp_path / "a", tmp_path / "c"))
    assert one.factors == ["strategy"]
