"""Statistics of finished runs: how evenly clients are served, intervals and tests over seeds."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

WORST_SHARE = 0.1
"""The share of clients that ``worst10`` is the mean of."""

MIN_SEEDS = 3
"""Values from which on a mean has an interval, and pairs from which on a paired t-test is made."""

MIN_RANKED = 6
"""Pairs from which on Wilcoxon's test can say anything: of five the least p is 0.0625."""

MIN_BLOCKS = 3
"""Settings from which on strategies are ranked by Friedman's test."""

LEVEL, POWER = 0.05, 0.8
"""The level of tests, and how often a difference that is called detectable is found."""


class Effect(NamedTuple):
    """A standardised mean difference with its 95 % interval."""

    size: float
    low: float
    high: float


class Ranking(NamedTuple):
    """What Friedman's test finds.

    Attributes:
        ranks: Average rank of every column, 1 for the best; ties share a rank.
        p_value: Of all columns being alike; NaN for fewer than three columns or settings.
        critical: How far two average ranks must lie apart (Nemenyi); NaN where there is no p-value.
    """

    ranks: list[float]
    p_value: float
    critical: float


def fairness(values: Collection[float], *, higher_is_better: bool = True) -> dict[str, float]:
    """Say how evenly clients are served.

    Args:
        values: One per client, such as its accuracy on its own test examples; none gives NaN.
        higher_is_better: Whether a larger number is the better one.

    Returns:
        ``mean``, ``std`` (of this population), the worst (``min``; ``max`` where a smaller number is the
        better one), and ``worst10``: the mean of the worst tenth of the clients, at least one.
    """
    ordered, extreme = np.sort(np.fromiter(values, dtype=np.float64)), "min"
    if not higher_is_better:
        ordered, extreme = ordered[::-1], "max"
    if not len(ordered):
        return dict.fromkeys(("mean", "std", extreme, "worst10"), math.nan)
    worst = ordered[: math.ceil(WORST_SHARE * len(ordered))]
    return {
        "mean": float(ordered.mean()),
        "std": float(ordered.std()),
        extreme: float(ordered[0]),
        "worst10": float(worst.mean()),
    }


def half_interval(values: Sequence[float]) -> float:
    """Return half the width of a mean's 95 % interval (Student's t).

    NaN for fewer than :data:`MIN_SEEDS` values: with one degree of freedom it is 12.7 standard errors.
    """
    if len(values) < MIN_SEEDS:
        return math.nan
    from scipy.stats import t

    spread = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return float(t.ppf(0.975, len(values) - 1)) * spread


def difference(first: float, second: float) -> float:
    """Return one number minus another, less what floating point adds to it.

    0.537 - 0.501 and 0.436 - 0.4 differ by 1e-16; tests would take that for the spread over seeds, and
    ranks for an order. So the last two of about 16 digits of the larger number are rounded off.
    """
    plain, scale = first - second, max(abs(first), abs(second))
    if not math.isfinite(plain) or scale == 0:
        return plain
    return round(plain, 14 - math.ceil(math.log10(scale)))


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


def wilcoxon_p_value(differences: Sequence[float]) -> float:
    """Return the two-sided p-value of Wilcoxon's signed-rank test, which assumes no normal distribution.

    NaN for fewer than :data:`MIN_RANKED` pairs; 1.0 where all are zero.
    """
    if len(differences) < MIN_RANKED:
        return math.nan
    if not np.any(differences):
        return 1.0
    from scipy.stats import wilcoxon

    return float(wilcoxon(differences).pvalue)


def effect_size(differences: Sequence[float]) -> Effect:
    """Return Hedges' g of paired differences: their mean in standard deviations, less its bias.

    The interval is that of the noncentral t distribution. All is NaN for fewer than :data:`MIN_SEEDS`
    pairs, or where all differences are the same.
    """
    number = len(differences)
    if number < MIN_SEEDS or np.ptp(differences) == 0:
        return Effect(math.nan, math.nan, math.nan)
    unbiased = 1 - 3 / (4 * (number - 1) - 1)
    root = math.sqrt(number)
    size = float(np.mean(differences)) / float(np.std(differences, ddof=1))
    limits = (_noncentrality(size * root, number - 1, share) for share in (0.975, 0.025))
    low, high = (unbiased * limit / root for limit in limits)
    return Effect(unbiased * size, low, high)


def detectable_difference(differences: Sequence[float]) -> float:
    """Return the mean difference that a paired t-test finds in four of five experiments like this one.

    As many pairs, of the same standard deviation, tested at the level 0.05. NaN for fewer than
    :data:`MIN_SEEDS` pairs.
    """
    number = len(differences)
    if number < MIN_SEEDS:
        return math.nan
    spread = float(np.std(differences, ddof=1)) / math.sqrt(number)
    return _detectable_noncentrality(number - 1) * spread


def rank(scores: npt.ArrayLike) -> Ranking:
    """Rank columns within every row, and test whether they are alike (Friedman 1937; Demsar 2006).

    Args:
        scores: Shape (settings, strategies), larger is better, no NaN.
    """
    values = np.asarray(scores, dtype=np.float64)
    from scipy.stats import friedmanchisquare, rankdata, studentized_range

    ranks = rankdata(-values, axis=1).mean(axis=0)
    blocks, columns = values.shape
    if blocks < MIN_BLOCKS or columns < 3:
        return Ranking(ranks.tolist(), math.nan, math.nan)
    p_value = 1.0 if np.ptp(values, axis=1).max() == 0 else friedmanchisquare(*values.T).pvalue
    quantile = studentized_range.ppf(1 - LEVEL, columns, np.inf) / math.sqrt(2)
    critical = float(quantile) * math.sqrt(columns * (columns + 1) / (6 * blocks))
    return Ranking(ranks.tolist(), float(p_value), critical)


def _noncentrality(statistic: float, freedom: int, share: float) -> float:
    """Return the noncentrality under which t is below the statistic with a probability."""
    from scipy.optimize import brentq
    from scipy.stats import nct

    def excess(noncentrality: float) -> float:
        return float(nct.cdf(statistic, freedom, noncentrality)) - share

    reach = 4.0 + abs(statistic)
    low, high = statistic - reach, statistic + reach
    if not excess(low) > 0 > excess(high):  # NaN far out, where SciPy's series ends
        return math.nan
    return float(brentq(excess, low, high))


@cache
def _detectable_noncentrality(freedom: int) -> float:
    from scipy.optimize import brentq
    from scipy.stats import nct, t

    edge = t.ppf(1 - LEVEL / 2, freedom)

    def lack(noncentrality: float) -> float:
        below, beyond = nct.cdf([-edge, edge], freedom, noncentrality)
        return float(1 - beyond + below) - POWER

    return float(brentq(lack, 1.0, 8.0))  # 5.7 with two degrees of freedom, 2.8 with very many


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
