"""NIID-Bench's table on Fashion-MNIST, as Flower's baseline of that name repeats it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import pandas as pd

from fedexp.analysis.results import Results
from fedexp.reproduce.lines import Bound, Cells, Check, Direction, Line, Told, curve

PARTITIONS = {"iid": "IID", "dirichlet": "Dir(0.5)"}
"""Partition -> what a column is called; the others are "#C=k", k labels a client."""

LABELS = "partition.classes_per_client"
"""The option that is k."""

FEDAVG, SCAFFOLD, FEDPROX, FEDNOVA = "fedavg", "scaffold", "fedprox", "fednova"
ALONE = "local_only"

PUBLISHED = {
    FEDAVG: {
        "IID": (0.8923, 0.0045),
        "Dir(0.5)": (0.8809, 0.0029),
        "#C=1": (0.2839, 0.1709),
        "#C=2": (0.7810, 0.0251),
        "#C=3": (0.8243, 0.0152),
    },
    SCAFFOLD: {
        "IID": (0.8933, 0.0027),
        "Dir(0.5)": (0.8844, 0.0025),
        "#C=1": (0.1000, 0.0000),
        "#C=2": (0.3380, 0.4122),
        "#C=3": (0.8032, 0.0503),
    },
    FEDPROX: {
        "IID": (0.8942, 0.0009),
        "Dir(0.5)": (0.8815, 0.0042),
        "#C=1": (0.3265, 0.0668),
        "#C=2": (0.7805, 0.0099),
        "#C=3": (0.8299, 0.0048),
    },
    FEDNOVA: {
        "IID": (0.8936, 0.0009),
        "Dir(0.5)": (0.8822, 0.0012),
        "#C=1": (0.1686, 0.0930),
        "#C=2": (0.7167, 0.0234),
        "#C=3": (0.8197, 0.0134),
    },
}
"""Strategy -> partition -> mean and standard deviation over seeds of the best accuracy in 50 rounds, as
Flower's baseline niid_bench lists them under "Expected Results" for Fashion-MNIST."""

COLLAPSED = ((SCAFFOLD, "#C=1"), (SCAFFOLD, "#C=2"))
"""0.1000 +- 0.0000 is chance. 0.3380 +- 0.4122 is what chance with two seeds and 0.81 with a third give:
no single run ends near such a mean."""

CHANCE = 0.25
"""What ends below has collapsed: chance is 0.1, and a model that tells two or three labels of ten apart
has 0.2 to 0.3."""

LEAST = 0.02
"""The least tolerance, that of niid_fmnist. Seeds differ by less where clients are alike, but Flower's
images are not normalised, and a single run of ours is no mean."""

SHOWS = (
    "One seed, a fifth of the rounds and a tenth of each round's steps: this shows which settings "
    "collapse, not where the others end, nor which strategy is best."
)
"""What the short form can and cannot show."""

LAST = 3
"""Rounds at the end whose mean says whether a short run has collapsed; its best round may come before."""


def niid_bench(found: Results) -> list[Line]:
    """Check the best round of every cell, within two published standard deviations; collapses by
    their limit.

    Isolated clients stand beside them; nobody published those.
    """
    ours = _cells(found, lambda by_round: float(by_round.max()))
    lines: list[Line] = []
    for strategy, column, mean, deviation in _published():
        what, best = f"{strategy}, {column}, best round", ours[strategy, column]
        if (strategy, column) in COLLAPSED:
            lines.append(Bound(what, mean, best, CHANCE, above=False))
        else:
            lines.append(Check(what, mean, round(max(LEAST, 2 * deviation), 4), best))
    return [*lines, *_isolated(ours)]


def quick(found: Results) -> list[Line]:
    """Check which cells collapse and which do not, by the last rounds; and the order of FedAvg's.

    Published figures that lie near the limit, as all at one label a client but SCAFFOLD's, are told and
    not judged: they are of collapsed and other seeds.
    """
    ours = _cells(found, lambda by_round: float(by_round.iloc[-LAST:].mean()))
    lines: list[Line] = []
    for strategy, column, mean, _ in _published():
        what, end = f"{strategy}, {column}, last {LAST} rounds", ours[strategy, column]
        if (strategy, column) in COLLAPSED:
            lines.append(Bound(what, mean, end, CHANCE, above=False))
        elif mean > 2 * CHANCE:
            lines.append(Bound(what, mean, end, CHANCE, above=True))
        else:
            lines.append(Told(what, end, mean))
    columns = list(PUBLISHED[FEDAVG])
    order = sorted(columns, key=lambda column: -PUBLISHED[FEDAVG][column][0])
    for better, other in itertools.pairwise(order):
        pair = [ours[FEDAVG, better]], [ours[FEDAVG, other]]
        lines.append(Direction(f"{FEDAVG}, {better} above {other}", *pair))
    return [*lines, *_isolated(ours)]


def _published() -> Iterator[tuple[str, str, float, float]]:
    for strategy, columns in PUBLISHED.items():
        for column, (mean, deviation) in columns.items():
            yield strategy, column, mean, deviation


def _isolated(ours: Cells) -> Sequence[Told]:
    columns = PUBLISHED[FEDAVG]
    return [Told(f"isolated clients, {column}", ours[ALONE, column]) for column in columns]


def _cells(found: Results, number: Callable[[pd.Series], float]) -> Cells:
    """Return a number of the accuracy by round, by strategy and column; runs that diverged have one."""
    cells = Cells()
    labels = found.settings.reindex(columns=[LABELS])[LABELS]  # absent where no run has it
    for run in found.ended:
        name = str(found.settings.at[run, "partition.name"])
        column = PARTITIONS.get(name) or f"#C={labels[run]}"
        cells[str(found.runs.at[run, "strategy"]), column] = number(curve(found, run))
    return cells
