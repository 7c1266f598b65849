"""Figures of several settings: a panel each, a strategy in one colour; ranks; single isolated clients."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.folders import alone, federated, write_run

from fedexp.analysis import figures
from fedexp.analysis.comparison import compare
from fedexp.analysis.figures.drawing import NARROW
from fedexp.analysis.figures.ranks import _alike
from fedexp.analysis.findings import headline
from fedexp.analysis.programs import compare_program
from fedexp.analysis.ranking import ranked
from fedexp.analysis.results import load

STRATEGIES, ALPHAS = ("fedavg", "fedadam", "scaffold"), (0.1, 1.0, 10.0)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("settings")
    for number, strategy in enumerate(STRATEGIES):
        for place, alpha in enumerate(ALPHAS):
            for seed in range(3):
                final = 0.25 + 0.125 * number + 0.0625 * place + 0.03125 * seed
                rows = [*federated(final), "0,global,test,all,,loss,2.0"]
                write_run(
                    folder / f"{strategy}-{alpha}-{seed}",
                    strategy,
                    rows,
                    seed=seed,
                    partition=f"{alpha}-{seed}",
                    settings={"partition": {"alpha": alpha}},
                )
    return folder


def test_settings_have_panels_and_strategies_keep_their_colours(sweep: Path) -> None:
    figure = figures.learning_curves(load(sweep))
    accuracy, loss = figure.axes[:3], figure.axes[3:]
    assert [axes.get_title() for axes in accuracy] == [
        *("partition.alpha=0.1", "partition.alpha=1", "partition.alpha=10"),
    ]
    colours: dict[str, set[Any]] = {}
    for place, axes in enumerate(accuracy):
        for line in axes.lines:
            number = STRATEGIES.index(line.get_label())
            colours.setdefault(line.get_label(), set()).add(str(line.get_color()))
            final = 0.25 + 0.125 * number + 0.0625 * place + 0.03125
            assert line.get_ydata()[-1] == pytest.approx(final)
    assert sorted(colours) == sorted(STRATEGIES)
    assert all(len(seen) == 1 for seen in colours.values())
    assert len(set.union(*colours.values())) == 3
    assert len({axes.get_ylim() for axes in accuracy}) == 1
    assert len(loss) == 3
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sorted(names) == sorted(STRATEGIES)


def test_subsets_have_a_panel_per_setting(sweep: Path) -> None:
    figure = figures.subset_curves(load(sweep))
    assert [axes.get_title() for axes in figure.axes] == [
        f"partition.alpha={alpha:g}\nlabels 1-3-7" for alpha in ALPHAS
    ]
    for axes in figure.axes:
        assert sorted(line.get_label() for line in axes.lines) == sorted(STRATEGIES)
        assert {line.get_ydata()[-1] for line in axes.lines} == {0.5}
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sorted(names) == sorted(STRATEGIES)


def test_bands_stay_within_what_is_possible(tmp_path: Path) -> None:
    for seed, final in enumerate((0.0, 0.5, 1.0)):
        write_run(tmp_path / f"{seed}", "fedavg", federated(final), seed=seed)
    band = figures.learning_curves(load(tmp_path)).axes[0].collections[0]
    ends = band.get_paths()[0].vertices[:, 1]
    assert (ends.min(), ends.max()) == (0.0, 1.0)


def test_ranks_are_drawn_where_they_lie(sweep: Path) -> None:
    found = load(sweep)
    ranks = ranked(compare(found))
    assert ranks is not None
    assert dict(zip(ranks.methods, ranks.ranks, strict=True)) == {
        **{("scaffold",): 1.0, ("fedadam",): 2.0},
        ("fedavg",): 3.0,
    }
    (axes,) = figures.critical_difference(found).axes
    told = [text.get_text() for text in axes.texts]
    assert told[:3] == ["scaffold  1.00", "fedadam  2.00", "fedavg  3.00"]
    length = np.ptp(axes.lines[-1].get_xdata())
    assert length == pytest.approx(ranks.critical)
    assert _alike([1.0, 2.0, 3.0, 4.0], 1.5) == [(1.0, 2.0), (2.0, 3.0), (3.0, 4.0)]
    assert _alike([1.0, 2.0, 4.0], 5.0) == [(1.0, 4.0)]


def test_two_settings_have_no_critical_difference(sweep: Path) -> None:
    found = load(sweep)
    two = found.select(run for run in found.completed if "-10.0-" not in found.path(run).name)
    assert ranked(compare(two)) is not None
    with pytest.raises(figures.NothingToDraw, match="fewer than three"):
        figures.critical_difference(two)


def test_a_client_that_never_saw_a_label_is_drawn_at_zero(tmp_path: Path) -> None:
    for seed in range(3):
        rows = [row for row in alone(0.5, 0.75) if "1-3-7,0" not in row]
        zero = [f"{k},local,test,1-3-7,0,accuracy,0.0" for k in (0, 2)]
        write_run(tmp_path / f"a{seed}", "local_only", [*rows, *zero], seed=seed)
        write_run(tmp_path / f"f{seed}", "fedavg", federated(0.75), seed=seed)
    figure = figures.subset_curves(load(tmp_path))
    lines = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}
    assert list(lines["single isolated clients"]) == [0.0, 0.0]  # the mean is 0.1875
    assert list(lines["local_only"])[-1] == 0.1875
    assert "stays at 0" in " ".join(figure.get_supxlabel().split())


@pytest.mark.slow  # draws every figure
def test_a_single_file_says_what_it_is_of(sweep: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        compare_program([str(sweep), "--figures", str(tmp_path)])
    svg = (tmp_path / "learning_curves.svg").read_text()
    assert "Runs: seeds 0, 1, 2." in " ".join(re.sub("<[^>]*>", " ", svg).split())


@pytest.mark.slow  # draws every figure
def test_figures_for_phones_have_panels_below_each_other_and_nothing_outside(
    sweep: Path,
) -> None:
    found = load(sweep)
    with figures.narrow():
        drawn = {name: figure for name, _, figure in figures.every(found)}
    assert {"learning_curves", "confusion_matrices", "critical_difference"} <= set(drawn)
    for name, figure in drawn.items():
        figures.png(figure)  # lays it out
        assert figure.get_figwidth() == NARROW, name
        lefts = {round(axes.get_position().x0, 2) for axes in figure.axes}
        assert len(lefts) <= 2, name  # colours of a confusion matrix stand beside it
        box = figure.get_tightbbox()
        assert box.x0 >= -0.02, name
        assert box.x1 <= NARROW + 0.02, name
    wide = figures.learning_curves(found)
    assert wide.get_figwidth() > NARROW


def test_clients_that_lose_are_counted_whole(tmp_path: Path) -> None:
    for seed, own in enumerate([(0.5, 0.5), (0.5, 1.0), (0.5, 0.5)]):
        write_run(tmp_path / f"f{seed}", "fedavg", federated(0.75, own=own), seed=seed)
        rows = alone(0.25, 0.5, own=(0.75, 0.75))
        write_run(tmp_path / f"a{seed}", "local_only", rows, seed=seed)
    found = load(tmp_path)
    said = headline(found, compare(found))
    assert "1 or 2 of 2" in said.title
    assert "1 or 2 of 2" in {fact.value for fact in said.facts}
