"""One metric by two factors, as text, Markdown, LaTeX and CSV."""

from __future__ import annotations

import io
import math
import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from support.folders import federated, write_run

from fedexp.analysis.comparison import compare
from fedexp.analysis.pivot import Pivot, pivot
from fedexp.analysis.programs import compare_program
from fedexp.analysis.results import load
from fedexp.analysis.tables import render

FINALS = {
    ("fedavg", 0.1): (0.5, 0.625, 0.75),
    ("fedavg", 10.0): (0.5, 0.5, 0.5),
    ("fed_adam", 0.1): (0.25, 0.25, 0.25),
    ("fed_adam", 10.0): (0.875, 0.9375, 1.0),
}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pivot")
    for (strategy, alpha), finals in FINALS.items():
        for seed, final in enumerate(finals):
            settings = {"partition": {"name": "dirichlet", "alpha": alpha}}
            run = folder / f"{strategy}-{alpha}-{seed}"
            shared = {"seed": seed, "settings": settings, "partition": f"{alpha}-{seed}"}
            write_run(run, strategy, federated(final), **shared)  # type: ignore[arg-type]
    return folder


def _pivot(folder: Path, metric: str = "accuracy", spread: str = "interval") -> Pivot:
    factors = ["strategy"], ["partition.alpha"]
    return pivot(compare(load(folder), [*factors[0], *factors[1]]), *factors, metric, spread)


def test_cells_are_means_with_the_best_marked(sweep: Path) -> None:
    half = 4.302653 * 0.125 / math.sqrt(3)
    fed_adam, fedavg = _pivot(sweep).rows
    assert fedavg == {
        **{"strategy": "fedavg", "alpha=0.1": f"**0.625 ± {half:.3f}**"},
        "alpha=10": "0.500 ± 0.000",
    }
    # 0.9375 +- 0.155 would leave what a share can be; the test within alpha=10 has p = 0.007.
    assert fed_adam["alpha=10"] == "**0.938 [0.782, 1.000]†**"
    assert fed_adam["alpha=0.1"] == "0.250 ± 0.000†"


@pytest.mark.parametrize(("spread", "shown"), [("deviation", 0.125), ("error", 0.125 / 3**0.5)])
def test_what_stands_behind_a_mean(sweep: Path, spread: str, shown: float) -> None:
    cell = _pivot(sweep, spread=spread).rows[1]["alpha=0.1"]
    assert cell == f"**0.625 ± {shown:.3f}**"
    assert _pivot(sweep, spread="none").rows[1]["alpha=0.1"] == "**0.625**"


def test_a_smaller_loss_is_the_better_one_and_unknown_metrics_are_refused(sweep: Path) -> None:
    assert _pivot(sweep, "loss").rows[0]["alpha=10"].startswith("**0.500")
    with pytest.raises(
        ValueError, match=r"^--metric magic: must be one of runs, diverged, accuracy"
    ):
        _pivot(sweep, "magic")


def test_csv_has_every_digit(sweep: Path) -> None:
    frame = pd.read_csv(io.StringIO(_pivot(sweep).render("csv", 80))).set_index("strategy")
    for (strategy, alpha), finals in FINALS.items():
        assert frame.at[strategy, f"alpha={alpha:g}"] == sum(finals) / 3
        assert frame.at[strategy, f"alpha={alpha:g}/n"] == 3


def test_latex_has_math_minus_and_no_bare_special(sweep: Path, tmp_path: Path) -> None:
    latex = _pivot(sweep).render("latex", 80)
    for line in (r"\toprule", r"\midrule", r"\bottomrule", r"\caption{"):
        assert latex.count(line) == 1
    assert r"$\mathbf{0.625 \pm 0.311}$" in latex
    assert (
        r"fed\_adam & $0.250 \pm 0.000^{\dagger}$ & \textbf{0.938 [0.782, 1.000]$\dagger$} \\"
        in latex
    )
    whole = render(compare(load(sweep)), "latex")
    tabulars = re.findall(r"\\begin{tabular}.*?\\end{tabular}", whole, flags=re.DOTALL)
    assert len(tabulars) >= 2
    for tabular in [*tabulars, latex]:
        plain = re.sub(r"\$[^$]*\$", "", tabular)
        assert not re.search(r"(?<![\w\\])-\d|±|−|(?<!\\)[_#]", plain)


@pytest.mark.slow  # starts LaTeX
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_compiles(sweep: Path, tmp_path: Path) -> None:
    found = compare(load(sweep))
    tables = (_pivot(sweep), _pivot(sweep, "p_difference"), _pivot(sweep, "rounds_to_target"))
    body = "\n\n".join([*(table.render("latex", 80) for table in tables), render(found, "latex")])
    head = "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n"
    (tmp_path / "paper.tex").write_text(f"{head}{body}\n\\end{{document}}\n", encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]


def test_the_program_makes_it(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(sweep), "--rows", "strategy", "--columns", "partition.alpha"]
    with pytest.raises(SystemExit) as ended:
        compare_program(words)
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "*0.625 ± 0.311" in text
    assert max(map(len, text.split("next:")[0].splitlines())) <= 80
    for wrong, told in (
        (["--columns", "nothing"], "--columns nothing: no run has this option"),
        (["--metric", "magic"], "--metric magic: must be one of"),
        (["--rows", "strategy", "--by", "seed"], "--by goes without --rows"),
    ):
        with pytest.raises(SystemExit) as ended:
            compare_program([str(sweep), *wrong])
        assert ended.value.code == 2
        assert f"fedexp compare: {told}" in capsys.readouterr().err
