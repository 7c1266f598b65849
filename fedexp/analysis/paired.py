"""Paired tests: every row with the baseline's runs of the same seeds, partitions and settings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from fedexp.analysis.factors import STRATEGY
from fedexp.analysis.pairing import Pairing
from fedexp.analysis.results import Results
from fedexp.core.statistics import (
    MIN_SEEDS,
    detectable_difference,
    difference,
    effect_size,
    half_interval,
    holm,
    paired_p_value,
    wilcoxon_p_value,
)


class Tests(NamedTuple):
    """What tests found.

    Attributes:
        table: A row per row of the comparison, in its order: ``baseline`` (the row it is tested
            against; None for a row that is not, its own name for a baseline), ``p_value`` and
            ``p_wilcoxon`` (Holm-adjusted), ``p_difference`` with ``.../ci``, ``p_seeds``, ``effect``
            with ``.../low`` and ``.../high``, ``detectable``.
        notes: What a reader must know.
    """

    table: pd.DataFrame
    notes: list[str]


def paired_tests(
    rows: Sequence[str], score: pd.Series, found: Results, pairing: Pairing, baseline: str
) -> Tests:
    """Test rows against the baseline, seed by seed, within equal other settings.

    A row that averages over settings has several runs of a seed, which are no further seeds: it is
    not tested.

    Args:
        rows: Names of the rows.
        score: Final accuracy, or what else is judged by, of every run, turned so that larger is better.
        found: The runs.
        pairing: Their rows, and what they have in common.
        baseline: A strategy, whose runs of the same settings are tested against; or the name of one
            row, which all are tested against over the seeds and partitions that both have.
    """
    one = baseline in set(pairing.labels)
    several = {name: _runs_by_key(name, found, pairing, by_draws=one) for name in rows}
    strategies = found.runs[STRATEGY].loc[pairing.labels.index]
    mine = pairing.labels[strategies == baseline]
    bases = [baseline] if one else list(dict.fromkeys(mine))
    if not one and set(pairing.labels[strategies != baseline]) & set(bases):
        bases = []  # rows that mix strategies have no baseline
    lines, ambiguous, alike = [], [], list[str]()
    for name in rows:
        matching = [base for base in bases if several[name].keys() & several[base].keys()]
        if name in bases:
            lines.append(_line(name, []))
        elif len(matching) == 1:
            keys = [key for key in several[name] if key in several[matching[0]]]
            runs = [(several[name][key], several[matching[0]][key]) for key in keys]
            found_apart = [difference(score[a], score[b]) for a, b in runs]
            lines.append(_line(matching[0], found_apart))
            if len(runs) >= MIN_SEEDS and len(set(found_apart)) == 1 and found_apart[0]:
                alike.append(name)
        else:
            ambiguous += matching
            lines.append(_line(None, []))
    table = pd.DataFrame(lines)
    for column in ("p_value", "p_wilcoxon"):
        table[column] = holm(table[column].tolist())
    notes = []
    if not bases and len(rows) > 1 and len(score) >= 2 * MIN_SEEDS:
        notes.append(f"no row is called {baseline}: --baseline ROW says what p is tested against")
    if alike:
        notes.append(
            f"{', '.join(alike)}: the difference is the same for all seeds, which leaves no spread to "
            "test it by; p is 0 there, and more seeds may not bear that out"
        )
    if ambiguous:
        names = ", ".join(dict.fromkeys(ambiguous))
        notes.append(f"several rows could be the baseline: --baseline ROW chooses one of {names}")
    return Tests(table, notes)


def _runs_by_key(name: str, found: Results, pairing: Pairing, *, by_draws: bool) -> dict[Any, int]:
    """Return a row's runs by what they share with those they are tested against."""
    runs = pairing.labels.index[pairing.labels == name]
    if found.runs["seed"].loc[runs].duplicated().any():
        return {}
    return {(pairing.draws(run) if by_draws else pairing.key(run)): int(run) for run in runs}


def _line(baseline: str | None, differences: list[float]) -> dict[str, Any]:
    pairs = differences if len(differences) >= MIN_SEEDS else []
    effect = effect_size(pairs)
    return {
        "baseline": baseline,
        "p_value": paired_p_value(pairs),
        "p_wilcoxon": wilcoxon_p_value(pairs),
        "p_difference": float(np.mean(pairs)) if pairs else math.nan,
        "p_difference/ci": half_interval(pairs),
        "p_seeds": len(pairs) or math.nan,
        "effect": effect.size,
        "effect/low": effect.low,
        "effect/high": effect.high,
        "detectable": detectable_difference(pairs),
    }
