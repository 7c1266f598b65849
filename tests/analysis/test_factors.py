"""Several factors at once: columns, tests within equal settings, all recomputed with pandas and SciPy."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats
from support.folders import alone, federated, write_run

from fedexp.analysis.comparison import compare
from fedexp.analysis.ranking import ranked
from fedexp.analysis.results import load
from fedexp.analysis.tables import render, tables

STRATEGIES = ("fedavg", "fedadam", "scaffold", "local_only")
ALPHAS = (0.1, 1.0, 10.0)
SEEDS = range(6)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of 4 strategies, 3 alphas and 6 seeds, with accuracies drawn once."""
    folder = tmp_path_factory.mktemp("sweep")
    draw = np.random.default_rng(0)
    for number, strategy in enumerate(STRATEGIES):
        for alpha in ALPHAS:
            for seed in SEEDS:
                final = float(np.clip(0.5 + 0.1 * number + draw.normal(0, 0.15), 0, 1))
                write_run(
                    folder / f"{strategy}-{alpha}-{seed}",
                    strategy,
                    alone(final, final) if strategy == "local_only" else federated(final),
                    seed=seed,
                    partition=f"{alpha}-{seed}",
                    settings={
                        "partition": {"name": "dirichlet", "alpha": alpha},
                        "dataset": {"name": "mnist5k"},
                    },
                )
    return folder


def _read(folder: Path) -> pd.Series:
    """Return the final accuracies by strategy, alpha and seed, read without fedexp."""
    found = {}
    for run in folder.iterdir():
        config = yaml.safe_load((run / "config.yaml").read_text())
        table = pd.read_csv(run / "metrics.csv")
        last = table.query("split == 'test' and subset == 'all' and metric == 'accuracy'")
        last = last[last["round"] == last["round"].max()]
        key = (config["strategy"]["name"], config["partition"]["alpha"], config["seed"])
        found[key] = last["value"].mean()
    return pd.Series(found).rename_axis(["strategy", "alpha", "seed"]).sort_index()


def test_every_frame_has_a_column_per_factor(sweep: Path) -> None:
    found = compare(load(sweep))
    assert found.factors == ["strategy", "partition.alpha"]
    for frame in (found.table, found.isolated, found.gains):
        assert list(frame.columns)[:3] == ["row", "strategy", "partition.alpha"]
        assert set(frame["partition.alpha"]) == set(ALPHAS)
    first = tables(found)[0]
    assert list(first.rows[0])[:3] == ["strategy", "partition.alpha", "runs"]
    assert first.rows[0]["partition.alpha"] == "0.1"


def test_numbers_are_those_of_pandas_and_scipy(sweep: Path) -> None:
    finals: Any = _read(sweep).unstack("seed")
    table: Any = compare(load(sweep)).table.set_index(["strategy", "partition.alpha"])
    tested = [(s, a) for s in STRATEGIES if s != "fedavg" for a in ALPHAS]
    raw: dict[str, list[float]] = {"p_value": [], "p_wilcoxon": []}
    for key in table.index:
        mine = finals.loc[key]
        half = stats.sem(mine) * stats.t.ppf(0.975, len(mine) - 1)
        row = table.loc[key]
        assert (row["accuracy"], row["accuracy/ci"]) == pytest.approx((mine.mean(), half))
        ends = (max(0, mine.mean() - half), min(1, mine.mean() + half))
        assert (row["accuracy/low"], row["accuracy/high"]) == pytest.approx(ends)
    for strategy, alpha in tested:
        row, base = table.loc[(strategy, alpha)], finals.loc[("fedavg", alpha)]
        differences = finals.loc[(strategy, alpha)] - base
        raw["p_value"].append(stats.ttest_rel(finals.loc[(strategy, alpha)], base).pvalue)
        raw["p_wilcoxon"].append(stats.wilcoxon(differences).pvalue)
        assert row["baseline"] == f"fedavg partition.alpha={alpha:g}"
        assert (row["p_difference"], row["p_seeds"]) == pytest.approx((differences.mean(), 6))
        size = differences.mean() / differences.std()
        assert row["effect"] == pytest.approx((1 - 3 / (4 * 5 - 1)) * size)
        for end, share in (("low", 0.975), ("high", 0.025)):  # what t would then be rare at
            limit = row[f"effect/{end}"] / (1 - 3 / (4 * 5 - 1)) * math.sqrt(6)
            reached = stats.nct.cdf(size * math.sqrt(6), 5, limit)
            assert reached == pytest.approx(share, abs=1e-6)
        found_at = row["detectable"] / differences.std() * math.sqrt(6)
        edge = stats.t.ppf(0.975, 5)
        power = stats.nct.sf(edge, 5, found_at) + stats.nct.cdf(-edge, 5, found_at)
        assert power == pytest.approx(0.8, abs=1e-6)
    for column, values in raw.items():
        ordered = sorted(range(len(tested)), key=lambda i: values[i])
        adjusted, least = {}, 0.0
        for place, i in enumerate(ordered):
            least = max(least, min(1.0, (len(tested) - place) * values[i]))
            adjusted[tested[i]] = least
        assert {key: table.loc[key, column] for key in tested} == pytest.approx(adjusted)
    assert table.loc["fedavg", "p_value"].isna().all()


def test_ranks_are_those_of_scipy(sweep: Path) -> None:
    means = _read(sweep).groupby(["strategy", "alpha"]).mean().unstack("strategy")
    means = means[
        ["fedavg", "fedadam", "scaffold"]
    ]  # isolated clients are no strategy among others
    found = ranked(compare(load(sweep)))
    assert found is not None
    assert found.methods == [("fedadam",), ("fedavg",), ("scaffold",)]
    ranks = means.rank(axis=1, ascending=False).mean()
    assert found.ranks == pytest.approx([ranks[name] for (name,) in found.methods])
    assert found.p_value == pytest.approx(stats.friedmanchisquare(*means.to_numpy().T).pvalue)
    # Demsar 2006, table 5: q at 0.05 for three classifiers is 2.343.
    assert found.critical == pytest.approx(2.343 * math.sqrt(3 * 4 / (6 * 3)), abs=1e-3)


def test_one_row_can_be_the_baseline_of_all(sweep: Path) -> None:
    found = compare(load(sweep), baseline="scaffold")
    table = found.table.set_index("row")
    assert table.loc["fedavg partition.alpha=1", "baseline"] == "scaffold partition.alpha=1"
    other = compare(load(sweep), baseline="fedavg partition.alpha=1").table
    tested = other[other["p_value"].notna()]
    assert set(tested["partition.alpha"]) == {1.0}  # others share no partition with it


def test_several_rows_of_the_baselines_strategy_are_said(tmp_path: Path) -> None:
    for seed in range(3):
        for mu in (0.1, 1.0):
            settings = {"strategy": {"name": "fedprox", "mu": mu}}
            run = tmp_path / f"{mu}-{seed}"
            write_run(run, "fedprox", federated(0.5 + mu / 8), seed=seed, settings=settings)
        write_run(tmp_path / f"a{seed}", "fedavg", federated(0.75), seed=seed)
    found = compare(load(tmp_path), baseline="fedprox")
    assert found.table["p_value"].isna().all()
    (note,) = found.notes
    assert note.endswith("chooses one of fedprox strategy.mu=0.1, fedprox strategy.mu=1")


def _run(folder: Path, **groups: Any) -> None:
    seed = len(list(folder.iterdir())) if folder.exists() else 0
    write_run(folder / f"{seed}", "fedavg", federated(0.5), settings=groups, seed=0)


def test_options_that_follow_from_a_choice_are_not_named(tmp_path: Path) -> None:
    mnist = {"name": "mnist", "subset": 5}
    fashion = {"name": "fashion", "subset": None, "fold": 1}
    few, many = {"num": 3, "fraction": 1.0}, {"num": 100, "fraction": 0.1}
    for dataset, rounds in ((mnist, 3), (fashion, 50)):
        for clients in (few, many):
            _run(tmp_path, dataset=dataset, clients=clients, rounds=rounds)
    found = compare(load(tmp_path))
    assert found.factors == ["strategy", "dataset.name", "clients.fraction"]
    assert found.table["row"].tolist()[0] == "fedavg dataset=mnist clients.fraction=1"
    assert found.notes[0] == "rows also differ in rounds, each of which follows from dataset"
    assert compare(load(tmp_path), by=["dataset"]).factors == ["dataset.name"]


def test_options_of_one_choice_that_vary_are_named(tmp_path: Path) -> None:
    for alpha in (0.1, 1.0):
        _run(tmp_path, partition={"name": "dirichlet", "alpha": alpha})
    _run(tmp_path, partition={"name": "exclude", "exclude": [[1], [2]]})
    found = compare(load(tmp_path))
    assert found.factors == ["strategy", "partition.name", "partition.alpha"]
    assert found.table["row"].tolist()[-1] == "fedavg partition=exclude"
    assert tables(found)[0].rows[-1]["partition.alpha"] == ""


def test_options_that_change_no_result_tell_no_rows_apart(tmp_path: Path) -> None:
    """Nor do those that runs of an earlier version lack."""
    write_run(tmp_path / "0", "fedavg", federated(0.5), seed=0)
    write_run(tmp_path / "1", "fedavg", federated(0.7), seed=1, settings=_later(every="auto"))
    write_run(tmp_path / "2", "local_only", alone(0.2, 0.4), seed=1, settings=_later(every=1))
    found = compare(load(tmp_path))
    assert found.factors == ["strategy"]
    assert found.table["runs"].tolist() == [2, 1]
    assert found.table["gain"].iloc[0] == pytest.approx(0.4)


def _later(*, every: object) -> dict[str, Any]:
    return {"clients": {"min_success": 1}, "checkpoint": {"every": every}}


def test_options_of_an_attack_that_only_one_run_has_tell_rows_apart(tmp_path: Path) -> None:
    for options in ({}, {"angle": 1}):
        _run(tmp_path, clients={"byzantine": {"kind": "mine", "options": options}})
    assert "clients.byzantine.options.angle" in compare(load(tmp_path)).factors


def test_few_runs_have_no_interval_and_a_number_of_fewer_says_so(tmp_path: Path) -> None:
    for seed in range(3):
        more = [f"2,global,test,all,,macro_f1,{0.25 * seed}"] if seed else []
        write_run(tmp_path / f"{seed}", "fedavg", [*federated(0.25 * seed), *more], seed=seed)
    found = compare(load(tmp_path))
    (row,) = tables(found)[0].rows
    assert row["accuracy"] == "0.250 [0.000, 0.871]"
    assert row["macro_f1"] == "0.375 (2 of 3)"
    assert math.isnan(found.table["macro_f1/ci"][0])


def test_what_some_runs_never_reach_stands_behind_what_all_do(tmp_path: Path) -> None:
    for seed in range(3):
        rows = [f"{k},global,test,all,,accuracy,{0.25 * k}" for k in range(4)]
        write_run(tmp_path / f"a{seed}", "fedavg", rows, seed=seed)
        early = [f"{k},global,test,all,,accuracy,{0.6 * (k > 1 and not seed)}" for k in range(4)]
        write_run(tmp_path / f"b{seed}", "fedadam", early, seed=seed)
    found = compare(load(tmp_path), target=0.5)
    table = found.table.set_index("row")
    assert table["rounds_censored"].to_dict() == {"fedavg": 2.0, "fedadam": math.inf}
    cells = {row["strategy"]: row["rounds to 0.5"] for row in tables(found)[0].rows}
    assert cells == {"fedavg": "2", "fedadam": "2 (1 of 3)"}


def test_runs_that_diverged_are_marked(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path / f"a{seed}", "fedavg", federated(0.5), seed=seed)
        lost: dict[str, Any] = {"status": "diverged", "error": "why"} if seed else {}
        write_run(tmp_path / f"b{seed}", "fedadam", federated(0.25), seed=seed, **lost)
        run = tmp_path / f"c{seed}"
        write_run(run, "fedyogi", federated(1.0), seed=seed, status="diverged", error="why")
    found = compare(load(tmp_path))
    table = found.table.set_index("row")
    assert table[["runs", "diverged"]].to_numpy().tolist() == [[3, 0], [1, 2], [0, 3]]
    assert table["accuracy"].tolist()[:2] == [0.5, 0.25]
    cells = [(row["runs"], row["accuracy"]) for row in tables(found)[0].rows]
    assert cells[1:] == [("1 (2 diverged)", "0.250"), ("0 (3 diverged)", "diverged")]
    assert found.target == 0.47  # of fedavg: what diverged is never the best


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("by", [(), ("strategy",), ("partition.alpha",)])
def test_no_line_is_wider_than_the_terminal(sweep: Path, width: int, by: tuple[str, ...]) -> None:
    text = render(compare(load(sweep), by), width=width)
    assert max(map(len, text.splitlines())) <= width


def test_long_values_are_shortened_and_not_wrapped(tmp_path: Path) -> None:
    for number in range(2):
        excluded = [[k, k + 1, number] for k in range(30)]
        _run(tmp_path, partition={"name": "exclude", "exclude": excluded, "other": number / 3})
    text = render(compare(load(tmp_path)))
    assert max(map(len, text.splitlines())) <= 80
    assert len({line for line in text.splitlines() if line.startswith("fedavg")}) >= 2


def test_every_heading_has_its_sentence(sweep: Path, tmp_path: Path) -> None:
    for shown in tables(compare(load(sweep))):
        assert [line.partition(": ")[0] for line in shown.legend] == list(shown.rows[0])
        assert all(len(line.partition(": ")[2]) > 10 for line in shown.legend)
    rows = [*federated(0.5, own=(0.5, 1.0)), "2,global,test,all,,macro_f1,0.5"]
    rows += [f"2,global,client_test,all,{k},macro_f1,0.5" for k in (0, 1)]
    for seed in range(2):
        write_run(tmp_path / f"{seed}", "fedavg", rows, seed=seed)
        write_run(tmp_path / f"c{seed}", "centralized", federated(0.75), seed=seed)
        single = alone(0.25, 0.5, own=(0.75, 0.75))
        write_run(tmp_path / f"a{seed}", "local_only", single, seed=seed)
    found = tables(compare(load(tmp_path)))
    assert {"1-3-7", "macro_f1", "own macro_f1", "client"} <= {h for t in found for h in t.rows[0]}
    text = render(compare(load(tmp_path)))
    for shown in found:
        for line in shown.legend:
            assert line.split(" ")[0] in text


def test_captions_say_what_the_runs_are_of(sweep: Path) -> None:
    run = sweep / "fedavg-0.1-0"
    (run / "environment.json").write_text(json.dumps({"started": "2026-11-25T22:00:00+0000"}))
    assert compare(load(sweep)).about == (
        "dataset mnist5k, partition dirichlet, seeds 0, 1, 2, 3, 4, ..., run on 2026-11-25"
    )


def test_notebooks_show_tables(sweep: Path) -> None:
    found = load(sweep)
    assert found._repr_html_().count("<tr") == len(found.runs) + 2  # two lines of headings
    comparison = compare(found)
    assert "fedadam" in repr(found)
    assert "fedadam" in repr(comparison)
    assert max(len(repr(frames).splitlines()) for frames in (found, comparison)) < 70
    cells = re.findall(r"<td>(.*?)</td>", comparison._repr_html_())
    first = comparison.table.iloc[0]
    told = ["fedadam", "0.1", "6", f"{first['accuracy']:.3f}", f"{first['accuracy/ci']:.3f}"]
    assert cells[:5] == told
    write_run(sweep.parent / "evil" / "0", "<script>", federated(0.5))
    evil = load(sweep.parent / "evil")
    assert "<script>" not in evil._repr_html_() + compare(evil)._repr_html_()


@pytest.mark.parametrize("by", [[], ["strategy"]])
def test_options_that_were_tuned_for_each_strategy_belong_to_it(
    tmp_path: Path, by: list[str]
) -> None:
    spaces = {"fedavg": ["training.learning_rate=interval(0.1,1)"], "local_only": []}
    (tmp_path / "tune.json").write_text(json.dumps({"spaces": spaces}))
    for folder in ("final", "other"):
        for seed in range(3):
            rates = {"fedavg": 0.5 + seed / 10, "fedadam": 0.1, "local_only": 0.2}
            for strategy, rate in zip(rates, (0.5, 0.1, 0.2), strict=True):
                rows = (
                    alone(0.25, 0.5)
                    if strategy == "local_only"
                    else federated(rates[strategy], own=(0.5, 0.5))
                )
                settings = {"training": {"learning_rate": rate}}
                where = tmp_path / folder / f"{strategy}-{seed}"
                write_run(where, strategy, rows, seed=seed, settings=settings)
    tuned = compare(load(tmp_path / "final"), by)
    assert tuned.table["row"].tolist() == ["fedadam", "fedavg", "local_only"]
    assert tuned.table["gain"].round(3).tolist()[:2] == [-0.275, 0.225]
    assert tuned.table["p_seeds"].tolist()[0] == 3
    assert [note for note in tuned.notes if "training.learning_rate" in note] == [
        "every strategy has the training.learning_rate that was tuned for it"
    ]
    # The same runs elsewhere differ in an option that concerns what they are compared with.
    assert compare(load(tmp_path / "other"), by).table["gain"].isna().all()


def test_equal_differences_of_all_seeds_are_told(tmp_path: Path) -> None:
    for seed, (first, second) in enumerate([(0.537, 0.501), (0.436, 0.4), (0.641, 0.605)]):
        write_run(tmp_path / f"a{seed}", "fedadam", federated(first), seed=seed)
        write_run(tmp_path / f"b{seed}", "fedavg", federated(second), seed=seed)
    found = compare(load(tmp_path))
    line: Any = found.table.set_index("row").loc["fedadam"]
    assert (line["p_value"], line["p_difference"]) == (0.0, pytest.approx(0.036))
    assert math.isnan(line["effect"])
    assert [note for note in found.notes if note.startswith("fedadam: the difference is the same")]
