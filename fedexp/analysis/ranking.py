"""Strategies ranked over several settings: Friedman's test, average ranks, the critical difference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from fedexp.analysis.comparison import Comparison
from fedexp.analysis.factors import STRATEGY, shown
from fedexp.analysis.results import FEDERATED
from fedexp.core.statistics import rank


@dataclass(frozen=True)
class Ranked:
    """Federated strategies by their ranks within settings.

    Attributes:
        keys: The factors that tell strategies apart: ``strategy`` and options of its own.
        methods: Their values, a tuple per strategy.
        settings: Names of the settings.
        scores: Final accuracy, mean over seeds; a row per setting, a column per method.
        ranks: Average rank of every method.
        p_value: Friedman's; NaN where there are fewer than three settings or methods.
        critical: Nemenyi's critical difference of average ranks, or NaN.
    """

    keys: list[str]
    methods: list[tuple[str, ...]]
    settings: list[str]
    scores: pd.DataFrame
    ranks: list[float]
    p_value: float
    critical: float


def ranked(found: Comparison) -> Ranked | None:
    """Rank federated strategies by accuracy within every setting in which all of them ran.

    Returns:
        None where there are fewer than two strategies, or fewer than two such settings.
    """
    keys = found.methods
    others = [key for key in found.factors if key not in keys]
    table: Any = found.table[(found.table["kind"] == FEDERATED) & (found.table["runs"] > 0)]
    if STRATEGY not in keys or not others or table.empty:
        return None
    methods = [tuple(map(shown, line)) for line in table[keys].to_numpy().tolist()]
    settings = [
        " ".join(f"{key}={shown(told)}" for key, told in zip(others, line, strict=True))
        for line in table[others].to_numpy().tolist()
    ]
    frame = pd.DataFrame(
        {"method": methods, "setting": settings, "score": table[found.goal.metric].to_numpy()}
    )
    scores: Any = frame.pivot(index="setting", columns="method", values="score")
    scores = scores.reindex(dict.fromkeys(settings)).dropna()
    if min(scores.shape) < 2:
        return None
    ranking = rank(found.goal.sign * scores.to_numpy())
    return Ranked(
        keys,
        list(scores.columns),
        [str(name) for name in scores.index],
        scores,
        ranking.ranks,
        ranking.p_value,
        ranking.critical,
    )
