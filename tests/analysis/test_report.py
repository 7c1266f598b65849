from __future__ import annotations

import html
import json
import os
import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.folders import alone, federated, write_run

from fedexp.analysis import captions, figures, legend, report
from fedexp.analysis.captions import caption
from fedexp.analysis.comparison import Comparison, compare
from fedexp.analysis.findings import Headline, headline
from fedexp.analysis.provenance import command, differences, shown
from fedexp.analysis.results import load
from fedexp.analysis.rows import NO_BREAK, Rows, brief
from fedexp.analysis.tables import tables
from fedexp.analysis.verdicts import paired_tests
from fedexp.config.composition import compose_config, plan

MUS = (1, 2, 3, 4, 9, 10)
COUNTS = [[0, 5], [5, 0]]
EVIL = "<script>alert(1)</script>"


def _federated(
    folder: Path, final: float, seed: int = 0, name: str = "fedavg", **more: Any
) -> None:
    rows = federated(final, own=(0.5, 1.0))
    write_run(folder, name, rows, **{"seed": seed, "class_counts": COUNTS, **more})


def _alone(folder: Path, *finals: float, seed: int = 0, **more: Any) -> None:
    losses = [f"{r},local,test,all,{k},loss,{2 - r / 2}" for r in (0, 2) for k in (0, 1)]
    rows = [*alone(*finals, own=(0.75, 0.75)), *losses]
    wrong = (
        [[0, 1], [0, 1]],
        [[1, 0], [1, 0]],
    )  # client 0 never saw label 0, client 1 never saw label 1
    options = {"seed": seed, "class_counts": COUNTS, "confusion": dict(enumerate(wrong)), **more}
    write_run(folder, "local_only", rows, **options)


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Three seeds of two strategies, isolated clients and all data together."""
    for seed, (final, other) in enumerate(((0.75, 0.5), (0.5, 0.25), (0.625, 0.5))):
        _federated(tmp_path / f"{seed}", final, seed)
        _federated(tmp_path / f"{seed + 3}", other, seed, "fedadam")
        _alone(tmp_path / f"{seed + 6}", 0.25, 0.5, seed=seed)
        _federated(tmp_path / f"{seed + 9}", 0.875, seed, "centralized")
    return tmp_path


def _said(folder: Path, *by: str) -> Headline:
    found = load(folder)
    said = headline(found, compare(found, by) if found.completed else None)
    return Headline(
        _plain(said.title),
        [type(fact)(*map(_plain, fact)) for fact in said.facts],
        [_plain(sentence) for sentence in said.sentences],
    )


def _plain(text: str) -> str:
    return text.replace(NO_BREAK, " ")


def test_several_strategies_and_seeds(sweep: Path) -> None:
    said = _said(sweep)
    # Gains 0.375, 0.125, 0.25: deviation 0.125, t 4.302653, half interval 0.3105: 0 is in it.
    assert said.title == (
        "No clear gain from federated learning: +0.250 ± 0.311 accuracy with fedavg "
        "(0.375 isolated, 0.625 federated)"
    )
    assert [tuple(fact) for fact in said.facts] == [
        ("Isolated, mean client", "0.375 ± 0.000", "best client 0.500"),
        ("Federated: fedavg", "0.625 ± 0.311", "whole test set, last round"),
        ("Gain per client", "+0.250 ± 0.311", "over the best client +0.125"),
        ("Labels never seen", "0.000 → 1.000 ± 0.000", "isolated → federated"),
        ("Clients worse off", "1 of 2", "on their own examples; mean +0.000 ± 0.000"),
        ("To centralized", "−0.250 ± 0.311", "one model, all the data"),
    ]
    assert said.sentences == [
        "fedavg is the best of 2 federated rows, chosen by this same test accuracy; the others: "
        "fedadam 0.417.",
        "Means over 3 seeds; ± is half the 95 % interval of the mean.",
    ]


@pytest.mark.parametrize(
    ("finals", "title"),
    [
        (
            (0.75, 0.765625),
            "Federated learning lifts a client's accuracy from 0.375 (isolated) to 0.758: "
            "+0.383 with fedavg on two seeds",
        ),
        (
            (0.25, 0.265625),
            "Federated learning lowers a client's accuracy from 0.375 (isolated) to 0.258: "
            "−0.117 with fedavg on two seeds",
        ),
        (
            (0.375, 0.375, 0.375),
            "No clear gain from federated learning: +0.000 ± 0.000 accuracy with fedavg ",
        ),
        (
            (0.75,),
            "Federated learning lifts a client's accuracy from 0.375 (isolated) to 0.750: "
            "+0.375 with fedavg on one seed",
        ),
        ((0.375,), "No gain from federated learning on one seed: 0.375, isolated or with fedavg"),
    ],
)
def test_the_title_says_which_way_it_goes(
    tmp_path: Path, finals: tuple[float, ...], title: str
) -> None:
    for seed, final in enumerate(finals):
        _federated(tmp_path / f"f{seed}", final, seed)
        _alone(tmp_path / f"a{seed}", 0.25, 0.5, seed=seed)
    said = _said(tmp_path)
    assert said.title.startswith(title)
    one = "One seed, so there are no intervals: another seed may say otherwise."
    assert (one in said.sentences) == (len(finals) == 1)


def test_a_gain_for_the_mean_client_that_the_best_does_not_have(tmp_path: Path) -> None:
    _federated(tmp_path / "0", 0.5)
    _alone(tmp_path / "1", 0.25, 0.625)
    assert "The best isolated client is better still: 0.625." in _said(tmp_path).sentences


def test_federated_runs_alone(tmp_path: Path) -> None:
    _federated(tmp_path / "0", 0.75)
    said = _said(tmp_path)
    assert said.title == "fedavg reaches 0.750 on the whole test set"
    assert [fact.label for fact in said.facts] == ["Federated: fedavg", "Worst tenth of clients"]
    assert said.sentences[0] == (
        "What federated learning gains is not known: no isolated clients were trained; "
        "strategy=local_only trains them."
    )
    _federated(tmp_path / "1", 0.5, name="fedadam")
    assert _said(tmp_path).title == "fedavg reaches 0.750 on the whole test set, the best of 2 rows"


def test_isolated_clients_of_another_seed_are_held_against_nobody(tmp_path: Path) -> None:
    _federated(tmp_path / "0", 0.75)
    _alone(tmp_path / "1", 0.25, 0.5, seed=1)
    said = _said(tmp_path)
    assert said.title == "fedavg reaches 0.750 on the whole test set"
    assert "no isolated run has their seed, partition and settings" in said.sentences[0]
    _alone(tmp_path / "2", 0.25, 0.5)
    _federated(tmp_path / "3", 0.75, seed=2)
    missing = "1 more of fedavg has no isolated clients to be compared with."
    assert missing in _said(tmp_path).sentences


def test_references_alone(tmp_path: Path) -> None:
    _federated(tmp_path / "0", 0.875, name="centralized")
    nothing = "no federated run to compare it with"
    assert _said(tmp_path).title == f"One model trained on all the data reaches 0.875; {nothing}"
    _alone(tmp_path / "1", 0.25, 0.5)
    said = _said(tmp_path)
    assert said.title == f"Isolated clients reach 0.375 on average, the best 0.500; {nothing}"
    assert said.facts[-1][:2] == ("To centralized", "−0.500")


def test_failed_runs_alone(tmp_path: Path) -> None:
    write_run(tmp_path / "0", "fedavg", [], status="failed", error="disk full")
    write_run(tmp_path / "1", "fedavg", [], status="interrupted", seed=1)
    said = _said(tmp_path)
    assert said.title == "No run completed, so there is nothing to compare: 1 failed, 1 interrupted"
    page = report.render(load(tmp_path), None, "two runs")
    assert f"failed: {tmp_path / '0'}: disk full" in page
    assert "2 of the runs did not complete" in page
    assert "<img" not in page


def test_runs_that_did_not_complete_are_told(sweep: Path) -> None:
    write_run(sweep / "99", "fedavg", [], seed=9, status="failed", error="disk full")
    assert _said(sweep).sentences[-1] == (
        "1 of 13 runs did not complete (1 failed): no number here includes them."
    )


def test_settings_have_a_gain_each(tmp_path: Path) -> None:
    for number, (alpha, final) in enumerate(((0.1, 0.75), (100, 0.25))):
        more: Any = {"settings": {"partition": {"alpha": alpha}}, "partition": f"p{alpha}"}
        _federated(tmp_path / f"f{number}", final, **more)
        _alone(tmp_path / f"a{number}", 0.25, 0.5, **more)
    said = _said(tmp_path)
    assert said.title == (
        "Federated learning changes accuracy by −0.125 (partition.alpha=100) to +0.375 "
        "(partition.alpha=0.1) compared with isolated clients"
    )
    assert said.facts[1] == (
        "partition.alpha=0.1",
        "+0.375",
        "isolated 0.375, fedavg 0.750; worse off 1 of 2",
    )
    mixed = _said(tmp_path, "seed")
    assert "seed=0 averages over fedavg, local_only." in mixed.sentences


def test_headline_and_table_round_alike(tmp_path: Path) -> None:
    for seed, final in enumerate((0.1, 0.7)):
        _federated(tmp_path / f"f{seed}", final, seed)
        _alone(tmp_path / f"a{seed}", 0.3, 0.6, seed=seed)
    found = load(tmp_path)
    comparison = compare(found)
    rows = Rows(found, comparison)
    assert rows.together("fedavg").mean == rows.number("fedavg", "accuracy").mean
    _federated(tmp_path / "f2", 0.9, seed=2)  # nothing to hold it against
    found = load(tmp_path)
    alone = Rows(found, compare(found)).together("fedavg")
    assert alone.number() == "0.400"


def test_paired_tests_are_said_or_why_there_are_none(sweep: Path, tmp_path: Path) -> None:
    found = load(sweep)
    # fedadam: differences -0.25, -0.25, -0.125, t -5, p 0.0377, times 3 (Holm); the others: -0.375,
    # -0.125, -0.25, and 0.125, 0.375, 0.25: t 3.464, p 0.0742, times 2.
    over = "over the 3 seeds that both have"
    assert paired_tests(compare(found)) == [
        f"fedadam is not shown to differ from fedavg: −0.208 {over}, p = 0.113.",
        f"local_only is not shown to differ from fedavg: −0.250 {over}, p = 0.148.",
        f"centralized is not shown to differ from fedavg: +0.250 {over}, p = 0.148.",
    ]
    named = paired_tests(compare(found, baseline="fedprox"))
    assert named == ["No paired test: no row has the baseline's name; --baseline ROW chooses one."]
    few = paired_tests(compare(found.select(range(0, 12, 3))))
    assert few == [
        "No paired test: no row with one run per seed shares 3 seeds on the same partition with fedavg."
    ]
    one = paired_tests(compare(found.select([0, 1, 2])))
    assert one == ["No paired test: there is only one row."]


def test_what_is_said_of_a_test_is_of_the_seeds_that_were_tested(tmp_path: Path) -> None:
    # fedadam is better on every seed that both have, though its mean over all its own is lower.
    for seed, final in enumerate((0.5, 0.5, 0.5, 0.875, 0.875)):
        write_run(tmp_path / f"{seed}", "fedavg", federated(final), seed=seed)
    for seed, final in enumerate((0.5625, 0.625, 0.59375)):
        write_run(tmp_path / f"{seed}a", "fedadam", federated(final), seed=seed)
    (said,) = paired_tests(compare(load(tmp_path)))
    # 1/16, 1/8, 3/32: mean 0.09375, standard error 1/32 / sqrt(3), t 5.196.
    assert said == (
        "fedadam differs from fedavg: +0.094 over the 3 seeds that both have, p = 0.035."
    )


def test_a_better_row_without_isolated_clients_is_named(tmp_path: Path) -> None:
    for job, (strategy, rate, rows) in enumerate(
        [
            ("fedavg", 0.1, federated(0.75)),
            ("fedadam", 0.1, federated(0.5)),
            ("fedavg", 0.5, federated(0.875)),
            ("local_only", 0.1, alone(0.25, 0.25)),
        ]
    ):
        settings = {"training": {"learning_rate": rate}}
        write_run(tmp_path / str(job), strategy, rows, settings=settings)
    found = load(tmp_path)
    said = " ".join(headline(found, compare(found)).sentences)
    assert "is the best of 2 federated rows compared with isolated clients" in said
    assert "fedavg training.learning_rate=0.5 reaches 0.875, but has no isolated clients" in said


def test_of_several_isolated_rows_the_title_names_its_own(tmp_path: Path) -> None:
    for alpha, accuracy in ((0.1, 0.25), (10.0, 0.75)):
        settings = {"partition": {"alpha": alpha}}
        rows = alone(accuracy, accuracy)
        write_run(
            tmp_path / str(alpha), "local_only", rows, settings=settings, partition=str(alpha)
        )
    found = load(tmp_path)
    title = headline(found, compare(found)).title
    assert title == (
        "Isolated clients reach 0.750 on average, the best 0.750 with local_only "
        "partition.alpha=10, the best of 2 rows; no federated run to compare it with"
    )


def test_long_names_keep_both_ends() -> None:
    name = f"partition.exclude=[{'1, ' * 50}] rounds=3"
    assert brief("fedavg rounds=3") == "fedavg rounds=3"
    assert brief(name).startswith("partition.exclude=[1")
    assert brief(name).endswith("] rounds=3")
    assert len(brief(name)) < 65


def _caption(name: str, folder: Path) -> str:
    found = load(folder)
    return caption(name, found, Rows(found, compare(found)))


def test_rows_that_reach_the_target_in_some_runs_say_in_how_many(tmp_path: Path) -> None:
    for seed in range(3):
        for name, final in (("fedavg", 0.95 if seed == 2 else 0.6), ("fedadam", 0.71)):
            rows = [f"{2 if name == 'fedavg' else 3},global,test,all,,accuracy,{final}"]
            write_run(tmp_path / f"{name}-{seed}", name, rows, seed=seed)
    found = load(tmp_path)
    said = caption("accuracy_against_time", found, Rows(found, compare(found, target=0.7)))
    assert said == "Rounds to accuracy 0.7: fedadam after 3, fedavg after 2 (1 of 3 runs)."


def _thirteen(folder: Path, lacking: int) -> None:
    """Write a pair of runs of 13 clients; the best, the median and the worst are 0, 6 and 12."""
    counts = [[0, 5] if client == lacking else [5, 5] for client in range(13)]
    wrong: dict[int | None, Any] = {k: [[12 - k, k], [k, 12 - k]] for k in range(13)}
    own = [0.5 + k / 64 for k in range(13)]
    shared: dict[str, Any] = {"class_counts": counts}
    write_run(folder / "0", "fedavg", federated(0.75, own=own), **shared)
    isolated = alone(*[0.5] * 13, own=[0.5] * 13)
    write_run(folder / "1", "local_only", isolated, confusion=wrong, **shared)


def test_frames_are_told_if_there_are_any(tmp_path: Path) -> None:
    _thirteen(tmp_path / "hidden", lacking=7)
    said = _caption("confusion_matrices", tmp_path / "hidden")
    assert said == (
        "Every client shown holds examples of every label; "
        "isolated clients name 0.500 of the test examples right, fedavg 0.750."
    )
    _thirteen(tmp_path / "framed", lacking=6)
    said = _caption("confusion_matrices", tmp_path / "framed")
    assert said.startswith(
        "Frames mark labels that a client never saw. Of their examples, an isolated client names"
    )


def test_the_matrices_caption_is_of_the_row_that_is_drawn(tmp_path: Path, sweep: Path) -> None:
    for number, final in enumerate((0.25, 0.5)):
        settings = {"training": {"momentum": number}}
        _alone(tmp_path / "rows" / f"{number}", final, final, settings=settings)
    said = _caption("confusion_matrices", tmp_path / "rows")
    assert said == "local_only training.momentum=1 names 0.500 of the test examples right."
    assert _caption("confusion_matrices", sweep).endswith("(fedavg) 1.000, mean over 3 seeds.")


def test_gains_of_many_clients_are_told_as_they_are_drawn(tmp_path: Path) -> None:
    _thirteen(tmp_path, lacking=6)
    said = _caption("gain_bars", tmp_path)
    assert said == (
        "On own test examples fedavg changes a client's accuracy by +0.000 (client 0) to "
        "+0.188 (client 12)."
    )


def test_subsets_are_told_of_a_row_that_has_some(tmp_path: Path) -> None:
    _federated(tmp_path / "0", 0.5, settings={"partition": {"name": "exclude"}}, partition="e")
    rows = ["2,global,test,all,,accuracy,0.75"]
    write_run(tmp_path / "1", "fedavg", rows, settings={"partition": {"name": "iid"}})
    said = _caption("subset_curves", tmp_path)
    assert said == "fedavg partition=exclude ends at 0.500 on 1-3-7."


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most of a report's seconds go into figures."""
    monkeypatch.setattr(figures, "every", lambda found, comparison: iter(()))


def _page(folder: Path) -> tuple[str, Comparison]:
    found = load(folder)
    comparison = compare(found)
    return report.render(found, comparison, folder.name), comparison


@pytest.mark.usefixtures("no_figures")
def test_the_page_holds_every_cell_of_the_tables(sweep: Path) -> None:
    page, comparison = _page(sweep)
    cells = [re.sub(r"<[^>]+>", "", cell).strip() for cell in re.findall(r"<td>(.*?)</td>", page)]
    expected = [
        cell
        for table in tables(comparison)
        for row in table.rows
        for cell in list(row.values())[1:]
    ]
    assert cells[: len(expected)] == expected
    assert "0.625 ± 0.311" in expected


@pytest.mark.usefixtures("no_figures")
def test_what_runs_are_called_stays_text(tmp_path: Path) -> None:
    settings = {"training": {"note": EVIL}}
    _federated(tmp_path / "0<b>", 0.75, name=EVIL, settings=settings)
    _federated(tmp_path / "1", 0.75, seed=1, name="fedavg")
    write_run(tmp_path / "2", "fedavg", [], status="failed", error=EVIL)
    environment = {"overrides": [f"training.note={EVIL}"], "command": ["fedexp"]}
    (tmp_path / "1" / "environment.json").write_text(json.dumps(environment))
    found = load(tmp_path)
    page = report.render(found, compare(found), EVIL)
    assert EVIL not in page
    assert "0<b>" not in page
    assert page.count("<script>") == 1
    assert page.count("&lt;script&gt;alert(1)") >= 6


@pytest.mark.usefixtures("no_figures")
def test_what_is_left_out_is_told(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(3):
        write_run(sweep / f"f{seed}", "fedavg", [], status="failed", seed=seed)
    for limit in ("MAX_RUNS", "MAX_COMMANDS", "MAX_LINES"):
        monkeypatch.setattr(report, limit, 2)
    page, _ = _page(sweep)
    assert "And 13 more runs; each folder&#39;s config.yaml holds its options." in page
    assert "And 13 more runs; each folder&#39;s environment.json holds its overrides." in page
    assert "And 1 more runs that did not complete; fedexp compare names them all" in page


def test_only_options_that_differ_are_shown(tmp_path: Path) -> None:
    for seed, momentum in enumerate((0.9, None)):
        training = {"momentum": momentum, "batch_size": 64, "hidden": [1, 2]}
        settings = {"training": training, "rounds": 2 + seed} | ({"only": True} if seed else {})
        _federated(tmp_path / f"{seed}", 0.5, seed, settings=settings)
    found = load(tmp_path)
    assert differences(found) == ["rounds", "seed", "training.momentum", "only"]
    assert [shown(value) for value in found.settings["training.momentum"]] == ["0.9", "null"]
    assert [shown(value) for value in found.settings["only"]] == ["", "true"]
    assert shown([[1, 3], [2]]) == "[[1, 3], [2]]"


def test_a_run_without_a_configuration_differs_in_none(tmp_path: Path) -> None:
    write_run(tmp_path / "0", "fedavg", federated(0.5))
    (write_run(tmp_path / "1", "fedavg", federated(0.5)) / "config.yaml").unlink()
    assert differences(load(tmp_path)) == []


@pytest.mark.slow
def test_runs_keep_their_names_where_only_some_are_shown(sweep: Path) -> None:
    found = load(sweep)
    later = found.select(found.completed[-2:])  # numbered as they were
    assert [name for name, _ in report._options(later).rows] == ["10", "11"]
    assert "some" in report.render(later, compare(later), "some")


def test_commands_make_the_same_configuration(tmp_path: Path) -> None:
    overrides = [
        "strategy=fedavg",
        "partition.exclude=[[1, 3], [2]]",
        "name='a $b'",
        "clients.num=2",
    ]
    _federated(tmp_path / "0", 0.5)
    _federated(tmp_path / "1", 0.5, seed=1)
    told = {
        "command": ["fedexp", "-m", "--config-dir", "my conf"],
        "overrides": overrides,
        "git_commit": "0123456789abcdef",
        "git_dirty": True,
    }
    (tmp_path / "0" / "environment.json").write_text(json.dumps(told))
    found = load(tmp_path)
    line = command(found, 0).line
    assert line.startswith("fedexp --config-dir 'my conf' strategy=fedavg 'partition.exclude=")
    assert compose_config(shlex.split(line)[3:]) == compose_config(overrides)
    assert command(found, 0).code == "commit 0123456789ab and uncommitted changes"
    assert command(found, 1).line == ""


def test_the_command_of_one_run_of_an_experiment_makes_one_run(tmp_path: Path) -> None:
    folder = tmp_path / "0"
    _federated(folder, 0.5)
    told = {"overrides": ["strategy=local_only", "+experiment=lesson"]}
    (folder / "environment.json").write_text(json.dumps(told))
    line = command(load(tmp_path), 0).line
    assert line == "fedexp strategy=local_only +experiment=lesson hydra.mode=RUN"
    (job,) = plan(shlex.split(line)[1:], multirun=False)
    assert (job.config.strategy.name, job.config.isolated_rounds) == ("local_only", 1)


def test_a_run_of_a_script_is_made_again_by_the_script(tmp_path: Path) -> None:
    overrides = ["strategy=mine", "seed=1"]
    told = {
        "command": ["mine.py", "-m", "strategy=mine,fedavg", "seed=1"],
        "overrides": overrides,
        "plugins": [{"file": "/home/me/mine.py", "sha256": "0", "provides": ["strategy=mine"]}],
    }
    package = {"file": "/lib/theirs.py", "package": "theirs", "version": "1.0"}
    others = {**told, "command": ["fedexp"], "plugins": [package]}
    for number, content in enumerate((told, others)):
        _federated(tmp_path / f"{number}", 0.5, number, "mine")
        (tmp_path / f"{number}" / "environment.json").write_text(json.dumps(content))
    found = load(tmp_path)
    assert command(found, 0).line == "python mine.py strategy=mine seed=1"
    assert command(found, 1).line == "fedexp strategy=mine seed=1"


@pytest.fixture
def program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs scripts/report.py: exit code, standard output and error."""
    file = Path(__file__).parents[2] / "scripts" / "report.py"

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["report.py", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(file), run_name="__main__")
        told = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, told.out, told.err

    return run


@pytest.mark.usefixtures("no_figures")
def test_the_program_writes_where_it_is_told(sweep: Path, program: Any, tmp_path: Path) -> None:
    default = sweep / "report.html"
    code, told, wrong = program(sweep)
    assert (code, told.splitlines()[0], wrong) == (0, str(default), "")
    assert told.splitlines()[1].startswith("next: ")
    other = tmp_path / "other.html"
    options = ("--by", "strategy", "--target", "0.6", "--baseline", "fedadam")
    code, told, wrong = program(sweep, "--output", other, *options)
    assert (code, told.splitlines()[0], wrong) == (0, str(other), "")
    page = other.read_text()
    assert "rounds to 0.6" in page
    assert "fedavg is not shown to differ from fedadam" in page
    assert "rounds to 0.59" in default.read_text()


@pytest.mark.usefixtures("no_figures")
def test_mistakes_are_one_line_and_exit_code_2(sweep: Path, program: Any, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    no_run = f"fedexp report: {empty}: no run here (a run's folder holds summary.json)\n"
    assert program(empty) == (2, "", no_run)
    gone = tmp_path / "gone" / "report.html"
    assert program(sweep, "--output", gone) == (
        2,
        "",
        f"fedexp report: {gone}: No such file or directory\n",
    )
    assert program(sweep, "--output", empty) == (2, "", f"fedexp report: {empty}: Is a directory\n")
    code, _, told = program(sweep, "--by", "nonsense")
    assert (code, told.count("\n")) == (2, 1)
    assert told.startswith("fedexp report: --by nonsense: no run has this option")


@pytest.mark.usefixtures("no_figures")
def test_a_run_that_did_not_complete_is_exit_code_1(sweep: Path, program: Any) -> None:
    write_run(sweep / "99", "fedavg", [], seed=9, status="failed", error="disk full")
    code, _, _ = program(sweep)
    assert code == 1
    assert "disk full" in (sweep / "report.html").read_text()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the report of a small sweep with all figures and a run that failed."""
    folder = tmp_path_factory.mktemp("whole")
    for seed, final in enumerate((0.75, 0.5)):
        _federated(folder / f"{seed}", final, seed, EVIL)
        _alone(folder / f"{seed + 2}", 0.25, 0.5, seed=seed)
    for number, mu in enumerate(MUS):
        more: Any = {"settings": {"strategy": {"name": "fedavg", "mu": mu}}}
        _federated(folder / f"{number + 4}", 0.0625 * mu, **more)
    write_run(folder / "99", "fedavg", [], seed=9, status="failed", error="disk full")
    page, _ = _page(folder)
    (folder / "report.html").write_text(page, encoding="utf-8")
    return folder / "report.html"


@pytest.mark.slow
def test_the_same_runs_give_the_same_bytes(whole: Path) -> None:
    assert _page(whole.parent)[0] == whole.read_text(encoding="utf-8")


@pytest.mark.slow  # draws every figure twice: 7 s
def test_the_page_needs_nothing_else(whole: Path) -> None:
    page = whole.read_text(encoding="utf-8")
    sources = re.findall(r'(?:src|srcset|href)="(.{0,5})', page)
    assert sources
    assert set(sources) <= {"data:", "#prob"}
    assert "url(" not in page
    assert "@import" not in page
    alts = re.findall(r'<img [^>]*alt="([^"]*)"', page)
    assert len(alts) >= 6
    assert all(re.search(r"\d", alt) for alt in alts)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Start Chromium without a display."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs Chromium and its driver (Debian: chromium, chromium-driver)")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    options.add_argument("--headless=new")
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield started
    started.quit()


@pytest.fixture
def page(browser: Any, whole: Path) -> Any:
    _screen(browser, 1280, "light")
    browser.get(whole.as_uri())
    return browser


def _screen(browser: Any, width: int, scheme: str) -> None:
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


@pytest.mark.slow
def test_the_page_loads_without_complaint(page: Any) -> None:
    assert page.get_log("browser") == []
    images = page.execute_script(
        "return [...document.images].map(i => [i.complete, i.naturalWidth, i.alt])"
    )
    assert len(images) >= 6
    assert all(complete and width > 0 and alt for complete, width, alt in images)
    assert page.execute_script("return document.scripts.length") == 1
    assert EVIL in page.find_element("tag name", "body").text


def _column(page: Any, column: int) -> list[str]:
    script = """return [...document.querySelector("table").tBodies].map(
        body => body.rows[0].cells[arguments[0]].textContent.trim())"""
    cells: list[str] = page.execute_script(script, column)
    return cells


def _heading(page: Any, name: str) -> tuple[int, Any]:
    headings = page.find_elements("css selector", "table:first-of-type thead th")
    for number, heading in enumerate(headings):
        if heading.text == name or heading.text.startswith(f"{name} "):
            return number, heading
    raise AssertionError(f"no column {name}")


@pytest.mark.slow
def test_tables_sort_by_click_and_by_key(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    column, heading = _heading(page, "accuracy")
    button = heading.find_element("tag name", "button")
    before = _column(page, column)
    assert "0.625" in before
    button.click()
    assert heading.get_attribute("aria-sort") == "ascending"
    rising = _column(page, column)
    assert rising == sorted(before, key=lambda cell: float(cell.split()[0]))
    assert rising != before
    button.send_keys(Keys.ENTER)
    assert heading.get_attribute("aria-sort") == "descending"
    assert _column(page, column)[0] == "0.625"
    column, other = _heading(page, "rounds to")
    other.find_element("tag name", "button").send_keys(Keys.SPACE)
    assert heading.get_attribute("aria-sort") == "none"
    assert other.get_attribute("aria-sort") == "ascending"
    assert _column(page, column)[-1] == "never"


@pytest.mark.slow
def test_cells_sort_as_numbers(page: Any) -> None:
    cells = ["12 of 15", "-", "2 of 15", "0.961 ± 0.002", "", "−0.5", "+0.25 ± 0.1", "1e-05"]
    script = """
        const bodies = [...document.querySelector("table").tBodies];
        bodies.slice(arguments[0].length).forEach(body => body.remove());
        arguments[0].forEach((text, i) => bodies[i].rows[0].cells[arguments[1]].textContent = text);"""
    column, heading = _heading(page, "runs")
    page.execute_script(script, cells, column)
    button = heading.find_element("tag name", "button")
    button.click()
    numbers = ["−0.5", "1e-05", "+0.25 ± 0.1", "0.961 ± 0.002", "2 of 15", "12 of 15"]
    assert _column(page, column)[:6] == numbers
    button.click()
    assert _column(page, column)[:6] == numbers[::-1]
    assert set(_column(page, column)[6:8]) == {"-", ""}


@pytest.mark.slow
def test_rows_below_a_row_move_with_it(page: Any) -> None:
    column, heading = _heading(page, "strategy")
    heading.find_element("tag name", "button").click()
    rows = page.execute_script(
        "return [...document.querySelector('table').rows].map(r => r.cells[0].textContent.trim())"
    )
    assert rows[-4:] == ["local_only", "best client (1)", "client 0", "client 1"]
    assert _column(page, column) == [EVIL, *["fedavg"] * len(MUS), "local_only"]
    column, heading = _heading(page, "strategy.mu")
    heading.find_element("tag name", "button").click()
    assert _column(page, column) == [*map(str, MUS), "", ""]  # 10 after 9


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_never_scrolls_sideways(page: Any, width: int) -> None:
    _screen(page, width, "light")
    root = "document.documentElement"
    across, seen = page.execute_script(f"return [{root}.scrollWidth, {root}.clientWidth]")
    assert across == seen <= width
    boxes = page.execute_script(
        "return [...document.querySelectorAll('.scroll')].map(b => b.getBoundingClientRect().right)"
    )
    assert max(boxes) <= seen
    wide = page.execute_script(
        "return [...document.querySelectorAll('.table')].some(b => b.scrollWidth > b.clientWidth)"
    )
    assert wide or width > 390


@pytest.mark.slow
@pytest.mark.parametrize(("width", "top"), [(390, 600), (1280, 400)])
def test_the_story_is_on_the_first_screen(page: Any, width: int, top: int) -> None:
    _screen(page, width, "light")
    box = "return document.querySelector('.hero img').getBoundingClientRect()"
    assert page.execute_script(box)["top"] < top
    assert page.find_element("tag name", "h1").text.startswith(
        "Federated learning lifts a client's accuracy"
    )


@pytest.mark.slow
def test_dark_mode_is_dark_and_figures_stay_on_white(page: Any) -> None:
    def colour(selector: str, kind: str) -> list[int]:
        script = "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]"
        return [int(n) for n in re.findall(r"\d+", page.execute_script(script, selector, kind))][:3]

    def contrast(first: list[int], second: list[int]) -> float:
        lights = sorted(map(_luminance, (first, second)))
        return (lights[1] + 0.05) / (lights[0] + 0.05)

    for scheme in ("light", "dark"):
        _screen(page, 1280, scheme)
        paper = colour("body", "backgroundColor")
        assert (sum(paper) < 200) == (scheme == "dark")
        assert contrast(colour("body", "color"), paper) > 7
        assert contrast(colour(".quiet", "color"), paper) > 4.5
        assert contrast(colour(".alarm a", "color"), paper) > 4.5
        assert colour(".card", "backgroundColor") == [255, 255, 255]


def _luminance(colour: list[int]) -> float:
    shares = [value / 255 for value in colour]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_every_number_of_the_headline_has_its_sentence(sweep: Path, tmp_path: Path) -> None:
    found = load(sweep)
    kinds = found.runs["kind"]
    several = tmp_path / "several"
    for number, alpha in enumerate((0.1, 1.0)):
        shared: dict[str, Any] = {
            "settings": {"partition": {"alpha": alpha}},
            "partition": f"{alpha}",
        }
        _federated(several / f"{number}", 0.75 - number / 4, **shared)
        _alone(several / f"{number + 2}", 0.25, 0.5, **shared)
    of_settings = "partition.alpha"
    labels = set()
    for chosen in (
        found,
        found.select(kinds.index[kinds == "federated"]),
        found.select(kinds.index[kinds == "centralized"]),
        load(several),
    ):
        comparison = compare(chosen)
        for fact in headline(chosen, comparison).facts:
            meaning = legend.fact(fact.label, comparison.goal)
            assert ("in this setting" in meaning) == fact.label.startswith(of_settings)
            labels.add(fact.label.partition(":")[0].partition("=")[0])
    # A new fact needs a sentence of its own: it must not pass for a setting.
    assert labels == {*legend._FACTS, of_settings}


def test_every_figure_has_its_sentence() -> None:
    without = [name for name in figures._ALL if "_against_" not in name]
    assert set(without) == set(captions._CAPTIONS)


@pytest.mark.slow  # draws every figure twice
def test_a_report_says_what_every_number_and_figure_is(sweep: Path) -> None:
    found = load(sweep)
    comparison = compare(found)
    text = html.unescape(_plain(report.render(found, comparison, "title")))
    for fact in headline(found, comparison).facts:
        assert _plain(legend.fact(fact.label, comparison.goal)) in text
    rows = Rows(found, comparison)
    for drawn in figures.every(found, comparison):
        said = captions.caption(drawn.name, found, rows)
        assert said
        assert _plain(said) in text
