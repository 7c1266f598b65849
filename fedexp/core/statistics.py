"""Statistics of finished runs: how evenly clients are served, intervals and tests over seeds."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np

WORST_SHARE = 0.1
"""The share of clients that ``worst10`` is the mean of."""

MIN_SEEDS = 3
"""Pairs from which on a paired test is made."""


def fairness(accuracies: Collection[float]) -> dict[str, float]:
    """Say how evenly clients are served.

    Args:
        accuracies: One per client, on its own share of the test images; none gives NaN.

    Returns:
        ``mean``, ``std`` (of this population), ``min``, and ``worst10``: the mean of the worst tenth of
        the clients, at least one.
    """
    ordered = np.sort(np.fromiter(accuracies, dtype=np.float64))
    if not len(ordered):
        return dict.fromkeys(("mean", "std", "min", "worst10"), math.nan)
    worst = ordered[: math.ceil(WORST_SHARE * len(ordered))]
    return {
        "mean": float(ordered.mean()),
        "std": float(ordered.std()),
        "min": float(ordered[0]),
        "worst10": float(worst.mean()),
    }


def half_interval(values: Sequence[float]) -> float:
    """Return half the width of a mean's 95 % interval (Student's t); NaN for fewer than two values."""
    if len(values) < 2:
        return math.nan
    from scipy.stats import t

    spread = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return float(t.ppf(0.975, len(values) - 1)) * spread


def paired_p_value(differences: Sequence[float]) -> float:
    """Return the two-sided p-value of a paired t-test; NaN for fewer than :data:`MIN_SEEDS` pairs.

    Differences that are all the same leave nothing to estimate a spread from: 1.0 if they are zero, else
    0.0, the limits of the test.
    """
    if len(differences) < MIN_SEEDS:
        return math.nan
    if np.ptp(differences) == 0:
        return 1.0 if differences[0] == 0 else 0.0
    from scipy.stats import ttest_1samp

    return float(ttest_1samp(differences, 0.0).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for their number (Holm 1979, Scand. J. Statist. 6); NaN stays and does not count.

    Args:
        p_values: Of one family of tests, in [0, 1] or NaN.

    Returns:
        In the same order: with ``m`` tests, the k-th smallest times ``m - k + 1``, at least as large as
        the one before it and at most 1.
    """
    given = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(len(given), math.nan)
    order = [i for i in np.argsort(given, kind="stable") if not math.isnan(given[i])]
    largest = 0.0
    for rank, position in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * given[position]))
        adjusted[position] = largest
    return [float(value) for value in adjusted]
