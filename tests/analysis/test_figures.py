"""What is drawn is what the runs' files say."""

from __future__ import annotations

import csv
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.patches import Rectangle
from support.folders import alone, federated, write_run

from fedexp.analysis import figures
from fedexp.analysis.comparison import compare
from fedexp.analysis.results import load

EXCLUDED = [{1, 3, 7}, {2, 5, 8}, {4, 6, 9}]
COUNTS = [[0 if label in gone else 5 for label in range(10)] for gone in EXCLUDED]
DRAWN = [
    *("confusion_matrices", "learning_curves", "gain_bars", "class_accuracies", "subset_curves"),
    *("accuracy_against_time", "accuracy_against_bytes", "partitions"),
]
T = 4.302653  # Student's t, two degrees of freedom, 97.5 %


def _matrix(unseen: set[int]) -> list[list[int]]:
    """Four images a label: three are right, one passes for the next label that is known."""
    known = [label for label in range(10) if label not in unseen]
    matrix = np.zeros((10, 10), dtype=int)
    for label in range(10):
        others = [k for k in known if k != label]
        matrix[label, label if label in known else others[0]] += 3
        matrix[label, others[-1]] += 1
    rows: list[list[int]] = matrix.tolist()
    return rows


@pytest.fixture(scope="module")
def lesson(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of three seeds of fedavg, qfedavg and isolated clients."""
    folder = tmp_path_factory.mktemp("lesson")
    for seed, shift in enumerate((0.0, 0.0625, -0.03125)):
        shared: dict[str, Any] = {"seed": seed, "class_counts": COUNTS}
        for strategy, final in (("fedavg", 0.75), ("qfedavg", 0.5)):
            rows = [
                *federated(final + shift, own=(0.5 + shift, 0.625, 0.75)),
                "2,global,train,all,,bytes_down,1500",
                "1,global,train,all,,bytes_up,400",
                "2,global,train,all,,bytes_up,500",
                *(f"{k},global,test,all,,loss,{2 - k / 2}" for k in (0, 1)),
            ]
            run = folder / f"{strategy}-{seed}"
            write_run(run, strategy, rows, confusion={None: _matrix(set())}, **shared)
            timings = (
                "round,phase,seconds\n0,startup,2.0\n0,evaluate,0.5\n1,train,1.0\n2,train,1.5\n"
            )
            (run / "timings.csv").write_text(timings)
        rows = alone(0.25, 0.375, 0.5, own=(0.75, 0.75, 0.75))
        rows += [f"2,local,test,all,{client},loss,{client + 1}" for client in range(3)]
        matrices: dict[int | None, Any] = {k: _matrix(gone) for k, gone in enumerate(EXCLUDED)}
        write_run(folder / f"alone-{seed}", "local_only", rows, confusion=matrices, **shared)
    return folder


def _lines(axes: Any) -> dict[str, tuple[list[float], list[float]]]:
    return {
        line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines
    }


def _read(folder: Path, split: str, metric: str, subset: str = "all") -> dict[int, list[float]]:
    """Return round -> values of metrics.csv, read without pandas."""
    found: dict[int, list[float]] = {}
    with (folder / "metrics.csv").open() as file:
        for row in csv.DictReader(file):
            if (row["split"], row["metric"], row["subset"]) == (split, metric, subset):
                found.setdefault(int(row["round"]), []).append(float(row["value"]))
    return found


def _band(axes: Any, number: int, at: float) -> tuple[float, float]:
    """Return the lower and the upper limit of a band."""
    vertices = axes.collections[number].get_paths()[0].vertices
    limits = [y for x, y in vertices if x == at]
    return min(limits), max(limits)


def _frames(axes: Any) -> set[tuple[float, float]]:
    boxes = [p for p in axes.patches if isinstance(p, Rectangle) and not p.get_fill()]
    return {box.get_xy() for box in boxes}


def _note(figure: Any) -> str:
    return " ".join(figure.get_supxlabel().split())


def test_lines_are_means_over_seeds_and_bands_their_intervals(lesson: Path) -> None:
    figure = figures.learning_curves(load(lesson))
    accuracy, loss = figure.axes
    seeds = [_read(lesson / f"fedavg-{seed}", "test", "accuracy") for seed in range(3)]
    finals = [run[2][0] for run in seeds]
    assert finals == [0.75, 0.8125, 0.71875]
    rounds, means = _lines(accuracy)["fedavg"]
    assert rounds == [0, 1, 2]
    assert means == pytest.approx([sum(run[k][0] for run in seeds) / 3 for k in range(3)])
    mean = sum(finals) / 3
    deviation = math.sqrt(sum((value - mean) ** 2 for value in finals) / 2)
    half = T * deviation / math.sqrt(3)
    assert _band(accuracy, 1, 2) == pytest.approx((mean - half, mean + half), abs=1e-6)
    assert _band(accuracy, 1, 1) == pytest.approx((0.99, 0.99))  # the same in all seeds
    isolated = _read(lesson / "alone-0", "test", "accuracy")
    expected = [sum(isolated[k]) / 3 for k in (0, 2)]
    assert _lines(accuracy)["local_only"][0] == [0, 2]
    assert _lines(accuracy)["local_only"][1] == pytest.approx(expected)
    assert _lines(loss)["fedavg"][1] == pytest.approx([2.0, 1.5, 0.5])
    assert "bands the 95 % interval" in _note(figure)
    assert list(_lines(accuracy)) == compare(load(lesson)).table["row"].tolist()
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["local_only", "fedavg", "qfedavg"]


def test_other_metrics_have_panels(tmp_path: Path) -> None:
    for seed, final in enumerate((0.25, 0.75)):
        more = [f"{k},global,test,all,,macro_f1,{final * k / 2}" for k in (0, 1, 2)]
        more += [f"{k},global,test,all,,ece,{final * k / 4}" for k in (0, 1, 2)]
        write_run(tmp_path / f"{seed}", "fedavg", [*federated(0.5), *more], seed=seed)
    write_run(tmp_path / "2", "fedadam", federated(0.5))  # has neither
    figure = figures.learning_curves(load(tmp_path))
    assert [axes.get_ylabel().split()[0] for axes in figure.axes] == [
        *("accuracy", "loss", "ece", "macro_f1"),
    ]
    *_, ece, macro_f1 = figure.axes
    assert _lines(macro_f1) == {"fedavg": ([0, 1, 2], [0.0, 0.25, 0.5])}
    assert _lines(ece) == {"fedavg": ([0, 1, 2], [0.0, 0.125, 0.25])}


def test_metrics_of_runs_that_are_not_compared_have_none(tmp_path: Path) -> None:
    write_run(tmp_path / "0", "fedavg", federated(0.5))
    more = ["0,global,test,all,,macro_f1,0.5"]
    write_run(tmp_path / "1", "fedadam", more, status="failed", error="why")
    assert len(figures.learning_curves(load(tmp_path)).axes) == 2


def test_one_run_has_no_band(tmp_path: Path) -> None:
    write_run(tmp_path / "0", "fedavg", federated(0.75))
    figure = figures.learning_curves(load(tmp_path))
    assert [len(axes.collections) for axes in figure.axes] == [0, 0]
    assert _note(figure) == "One run a row, so there are no intervals."


def test_a_run_that_stopped_early_keeps_its_last_value(tmp_path: Path) -> None:
    short = ["0,global,test,all,,accuracy,0.25", "1,global,test,all,,accuracy,0.5"]
    loss = "1,global,test,all,,loss,1.0"
    write_run(tmp_path / "0", "fedavg", [*short, loss])
    write_run(tmp_path / "1", "fedavg", [*short, "2,global,test,all,,accuracy,1.0", loss], seed=1)
    figure = figures.learning_curves(load(tmp_path))
    assert _lines(figure.axes[0])["fedavg"] == ([0, 1, 2], [0.25, 0.5, 0.75])
    assert "A run that stopped early keeps its last value" in _note(figure)


def test_losses_far_apart_have_a_log_scale_that_is_named(tmp_path: Path) -> None:
    write_run(tmp_path / "0", "fedavg", federated(0.75, loss=0.25))
    isolated = [*alone(0.5, 0.5), "2,local,test,all,0,loss,5.0"]
    write_run(tmp_path / "1", "local_only", isolated)
    loss = figures.learning_curves(load(tmp_path)).axes[1]
    assert (loss.get_yscale(), "log scale" in loss.get_ylabel()) == ("log", True)
    write_run(tmp_path / "2" / "0", "fedavg", federated(0.75))
    loss = figures.learning_curves(load(tmp_path / "2")).axes[1]
    assert (loss.get_yscale(), "log scale" in loss.get_ylabel()) == ("linear", False)


def test_subsets_have_a_panel_each(lesson: Path, tmp_path: Path) -> None:
    (panel,) = figures.subset_curves(load(lesson)).axes
    assert panel.get_title() == "test examples of labels 1-3-7"
    assert _lines(panel)["fedavg"] == ([2], [0.5])
    half = [sum(values) / 3 for values in _read(lesson / "alone-0", "test", "accuracy").values()]
    assert _lines(panel)["local_only"][1] == pytest.approx([value / 2 for value in half])
    many = [f"2,global,test,{k},,accuracy,0.5" for k in range(9)]
    write_run(tmp_path / "0", "fedavg", [*federated(0.5), *many])
    figure = figures.subset_curves(load(tmp_path))
    assert len(figure.axes) == 6
    assert "6 of 10 subsets are shown" in _note(figure)


def test_confusion_shows_isolated_clients_beside_the_best_federated_row(lesson: Path) -> None:
    figure = figures.confusion_matrices(load(lesson))
    *panels, _ = figure.axes
    # Three of four images of seven labels, and of ten.
    alone_, together = "accuracy 0.525", "accuracy 0.750"
    assert [panel.get_title() for panel in panels] == [
        *(f"Client {client}, isolated\n{alone_}" for client in range(3)),
        f"Federated: fedavg\n{together}",
    ]
    for client, gone in enumerate(EXCLUDED):
        assert _frames(panels[client]) == {(label - 0.5, -0.5) for label in gone}
        shown = panels[client].images[0].get_array()
        assert shown[:, list(gone)].max() == 0
        assert shown.tolist() == (25.0 * np.array(_matrix(gone))).tolist()
        # Nothing is written in an empty column.
        assert not gone & {round(text.get_position()[0]) for text in panels[client].texts}
    assert _frames(panels[3]) == set()
    assert {text.get_text() for text in panels[3].texts} == {"75", "25"}
    assert "fedavg is the federated row with the best accuracy. Seed 0" in _note(figure)


def test_of_many_isolated_clients_best_median_and_worst_are_shown(tmp_path: Path) -> None:
    # Client 3 has 4 of 4 right, client 0 one.
    matrices: dict[int | None, Any] = {
        client: [[right, 2 - right], [2 - other, other]]
        for client, (right, other) in enumerate([(1, 0), (2, 1), (1, 1), (2, 2)])
    }
    counts = [[1, 1]] * 4
    write_run(
        tmp_path / "0", "local_only", alone(*[0.5] * 4), class_counts=counts, confusion=matrices
    )
    figure = figures.confusion_matrices(load(tmp_path))
    assert [axes.get_title().replace("\n", " ") for axes in figure.axes[:3]] == [
        "Client 3, isolated (best) accuracy 1.000",
        "Client 2, isolated (median) accuracy 0.500",
        "Client 0, isolated (worst) accuracy 0.250",
    ]
    assert "3 of 4 isolated clients are shown" in _note(figure)
    assert "frame" not in _note(figure)


def test_the_heat_map_marks_exactly_the_labels_never_seen(lesson: Path) -> None:
    figure = figures.class_accuracies(load(lesson))
    isolated, together, _ = figure.axes
    marks = {(label, client) for client, gone in enumerate(EXCLUDED) for label in gone}
    assert _frames(isolated) == _frames(together) == marks
    expected = [[0.0 if label in gone else 0.75 for label in range(10)] for gone in EXCLUDED]
    assert isolated.collections[0].get_array().tolist() == expected
    assert together.collections[0].get_array().tolist() == [[0.75] * 10] * 3
    assert [axes.get_title() for axes in (isolated, together)] == [
        "isolated clients",
        "federated: fedavg",
    ]
    assert "A frame marks a label that the client holds no training example of" in _note(figure)


def test_gain_bars_are_federated_minus_isolated(lesson: Path) -> None:
    figure = figures.gain_bars(load(lesson))
    assert [axes.get_title() for axes in figure.axes] == ["fedavg", "qfedavg"]
    whole, own, unseen = figure.axes[0].containers[1::2]  # error bars are containers too
    finals = [0.75, 0.8125, 0.71875]
    apart = [0.25, 0.375, 0.5]
    mean = sum(finals) / 3
    assert [bar.get_height() for bar in whole] == pytest.approx([mean - had for had in apart])
    own_mean = sum((0.5, 0.5625, 0.46875)) / 3
    expected = [own_mean - 0.75, 0.625 - 0.75, 0.0]
    assert [bar.get_height() for bar in own] == pytest.approx(expected)
    assert [bar.get_height() for bar in unseen] == [0.75] * 3
    deviation = math.sqrt(sum((value - mean) ** 2 for value in finals) / 2)
    ((low, high),) = whole.errorbar.lines[2][0].get_segments()[:1]
    half = T * deviation / math.sqrt(3)
    assert (high[1] - low[1]) / 2 == pytest.approx(half, abs=1e-6)
    assert "lines their 95 % intervals" in _note(figure)


def test_gains_of_clients_that_every_seed_makes_anew_are_one_seeds(tmp_path: Path) -> None:
    for seed, finals in enumerate(((0.25, 0.75), (0.75, 0.25))):
        more: dict[str, Any] = {"seed": seed, "partition": f"p{seed}"}
        write_run(tmp_path / f"{seed}l", "local_only", alone(*finals), **more)
        write_run(tmp_path / f"{seed}f", "fedavg", federated(0.5), **more)
    found = load(tmp_path)
    figure = figures.gain_bars(found)
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    assert heights[:2] == [0.25, -0.25]  # means by number would all be 0
    assert "bars are of the first seed only" in _note(figure)
    assert "means over runs" not in _note(figure)


def test_a_measure_that_no_client_has_is_left_out(tmp_path: Path) -> None:
    own: Any = {"own": (0.5, 0.5)}
    write_run(tmp_path / "0", "fedavg", federated(0.75, **own))
    write_run(tmp_path / "1", "local_only", alone(0.25, 0.5, **own))
    figure = figures.gain_bars(load(tmp_path))
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["whole test set", "own test examples"]


def test_many_clients_are_sorted_by_their_gain_and_rows_are_capped(tmp_path: Path) -> None:
    own = [k / 16 for k in range(13)]
    shared: dict[str, Any] = {"class_counts": [[1, 1]] * 13}
    isolated = alone(*[0.5] * 13, own=[0.5] * 13)
    write_run(tmp_path / "0", "local_only", isolated, **shared)
    for k in range(8):
        settings = {"strategy": {"name": "fedprox", "mu": k}}
        rows = federated(0.5 + k / 32, own=own)
        write_run(tmp_path / f"1-{k}", "fedprox", rows, settings=settings, **shared)
    figure = figures.gain_bars(load(tmp_path))
    # The least accurate two are left out.
    assert [axes.get_title()[-1] for axes in figure.axes] == ["2", "3", "4", "5", "6", "7"]
    assert "6 of 8 federated rows are shown" in _note(figure)
    bars = figure.axes[0].patches
    heights = {bar.get_x() + 0.5: bar.get_height() for bar in bars}
    assert [heights[k] for k in range(13)] == sorted((share - 0.5 for share in own), reverse=True)
    assert figure.axes[0].get_xlabel().endswith("8 of 13 worse off")  # 0/16 to 7/16


def test_bytes_are_what_was_sent_so_far(lesson: Path) -> None:
    figure = figures.accuracy_against_bytes(load(lesson))
    (axes,) = figure.axes
    lines = _lines(axes)
    # Down 100 and up 400 in the first round, down 1500 and up 500 in the second.
    assert lines["fedavg"][0] == pytest.approx([0.0, 0.5, 2.5])
    assert lines["fedavg"][1] == pytest.approx([0.125, 0.99, sum((0.75, 0.8125, 0.71875)) / 3])
    assert axes.get_xlabel() == "weights sent to and by clients so far (kB)"
    assert lines["local_only"][1] == pytest.approx([0.375, 0.375])
    assert "Rows that send no weights are a horizontal line" in _note(figure)


def test_seconds_are_those_since_the_start(lesson: Path) -> None:
    (axes,) = figures.accuracy_against_time(load(lesson)).axes
    lines = _lines(axes)
    assert lines["fedavg"][0] == [2.5, 3.5, 5.0]
    assert "local_only" not in lines  # its runs have no timings.csv


def test_partitions_are_the_counts(lesson: Path, tmp_path: Path) -> None:
    figure = figures.partitions(load(lesson))
    (axes,) = figure.axes
    for label, bars in enumerate(axes.collections):
        tops = [path.vertices[:, 1] for path in bars.get_paths()]
        heights = [round(top.max() - top.min()) for top in tops]
        assert heights == [counts[label] for counts in COUNTS]
    assert _note(figure) == "Seed 0; other seeds deal the same examples."
    for k in range(5):
        settings = {"partition": {"alpha": k}}
        counts = [[1, 1]] * 101
        run = tmp_path / str(k)
        write_run(
            run, "fedavg", federated(0.5), settings=settings, class_counts=counts, partition=str(k)
        )
    figure = figures.partitions(load(tmp_path))
    assert [axes.get_title() for axes in figure.axes] == [f"partition.alpha={k}" for k in range(4)]
    capped = "Seed 0. The first 100 of 101 clients are shown. 4 of 5 partitions are shown."
    assert _note(figure) == capped
    write_run(tmp_path / "5", "fedavg", federated(0.5), seed=1, partition="other")
    assert "Seed 0; other seeds deal other examples" in _note(figures.partitions(load(tmp_path)))
    assert len(figure.axes[0].collections[0].get_paths()) == 100


def test_rows_are_named_as_in_the_table_and_capped(tmp_path: Path) -> None:
    for k in range(18):
        settings = {"strategy": {"name": "fedprox", "mu": k}}
        write_run(tmp_path / f"{k}", "fedprox", federated(0.5 + k / 64), settings=settings)
        write_run(
            tmp_path / f"{k}-b", "fedprox", federated(0.5 + k / 64), settings=settings, seed=1
        )
    write_run(tmp_path / "alone", "local_only", alone(0.25, 0.25), seed=9)
    found = load(tmp_path)
    figure = figures.learning_curves(found)
    lines = list(_lines(figure.axes[0]))
    rows = compare(found).table["row"].tolist()
    assert lines == [
        row for row in rows if row not in [f"fedprox strategy.mu={k}" for k in range(3)]
    ]
    assert len(lines) == 16
    assert "16 of 19 rows are shown: the most accurate, references among them" in _note(figure)
    assert "of more than 8 rows no intervals are drawn" in _note(figure)
    assert len(figure.axes[0].collections) == 0
    looks = {
        (str(line.get_color()), str(line.get_linestyle()), line.get_marker())
        for line in figure.axes[0].lines
    }
    assert len(looks) == 16


def test_every_figure_is_drawn_without_a_warning(lesson: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = list(figures.every(load(lesson)))
        for _, _, figure in drawn:
            figure.draw_without_rendering()
    assert [name for name, _, _ in drawn] == DRAWN


@pytest.mark.slow
def test_saved_figures_are_the_same_bytes_every_time(lesson: Path, tmp_path: Path) -> None:
    found = load(lesson)
    comparison = compare(found)
    for draw in (figures.learning_curves, figures.class_accuracies):  # lines; an image and frames
        first, second = (
            figures.save(draw(found, comparison), tmp_path / name / "figure") for name in "ab"
        )
        assert [path.name for path in first] == ["figure.png", "figure.svg"]
        assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
        svg = first[1].read_text()
        assert "<dc:date>" not in svg
        assert ">fedavg</text>" in svg or ">federated: fedavg</text>" in svg  # words, not outlines


def test_figures_show_in_notebooks(lesson: Path) -> None:
    figure = figures.partitions(load(lesson))
    assert figure._repr_png_() == figures.png(figure)


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (figures.subset_curves, "no subsets"),
        (figures.learning_curves, "no run has the loss on the test set"),
        (figures.accuracy_against_time, r"timings\.csv"),
        (figures.accuracy_against_bytes, "bytes sent"),
        (figures.gain_bars, "no federated run is compared with isolated clients"),
        (figures.class_accuracies, "no federated run is compared with isolated clients"),
    ],
)
def test_what_the_runs_lack_is_said(draw: Callable[..., Any], message: str, tmp_path: Path) -> None:
    write_run(tmp_path / "0", "fedavg", ["1,global,test,all,,accuracy,0.5"])
    with pytest.raises(figures.NothingToDraw, match=message):
        draw(load(tmp_path))
    drawn = [name for name, _, _ in figures.every(load(tmp_path))]
    assert drawn == ["confusion_matrices", "partitions"]


def test_lines_of_any_panel_are_named(tmp_path: Path) -> None:
    for number, subset in enumerate(("1-3", "2-5")):
        settings = {"partition": {"exclude": subset}}
        rows = ["2,global,test,all,,accuracy,0.5", f"2,global,test,{subset},,accuracy,0.5"]
        write_run(tmp_path / f"{number}", "fedavg", rows, settings=settings, partition=subset)
    figure = figures.subset_curves(load(tmp_path))
    # Each setting has labels of its own; an empty panel would say nothing.
    assert [axes.get_title() for axes in figure.axes] == [
        f"partition.exclude={subset}\nlabels {subset}" for subset in ("1-3", "2-5")
    ]
    assert [len(axes.lines) for axes in figure.axes] == [1, 1]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["fedavg"]


def test_datasets_that_share_a_partition_have_a_panel_and_a_legend_each(tmp_path: Path) -> None:
    counts = {"mnist": [[2, 1], [1, 2]], "svhn": [[1, 1, 1], [1, 1, 1]]}
    for name, held in counts.items():
        for dropout in (0, 0.5):  # deals the same images
            settings = {"dataset": {"name": name}, "clients": {"dropout": dropout}}
            run = tmp_path / f"{name}-{dropout}"
            write_run(run, "fedavg", federated(0.5), settings=settings, class_counts=held)
    figure = figures.partitions(load(tmp_path))
    assert [axes.get_title().split()[0] for axes in figure.axes] == [
        "dataset=mnist",
        "dataset=svhn",
    ]
    named = [[text.get_text() for text in axes.get_legend().get_texts()] for axes in figure.axes]
    assert named == [["1", "0"], ["2", "1", "0"]]
    assert figure.legends == []


def test_the_best_row_is_called_so_only_if_it_is(tmp_path: Path) -> None:
    write_run(tmp_path / "0", "fedavg", federated(0.5))
    write_run(tmp_path / "1", "local_only", alone(0.25, 0.25))
    write_run(tmp_path / "2", "fedadam", federated(0.75), partition="other")
    note = _note(figures.confusion_matrices(load(tmp_path)))
    assert "fedavg is the best of the federated rows compared with isolated clients. " in note
