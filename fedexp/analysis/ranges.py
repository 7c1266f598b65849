"""Where the numbers of a comparison can lie, and which of two is the better one."""

from __future__ import annotations

import math

_SHARE, _DIFFERENCE, _POSITIVE = (0.0, 1.0), (-1.0, 1.0), (0.0, math.inf)

_RANGES = {
    **dict.fromkeys(("accuracy", "balanced_accuracy", "macro_f1", "top5", "ece"), _SHARE),
    **dict.fromkeys(("gain", "gain_own", "gain_unseen", "to_centralized"), _DIFFERENCE),
    **dict.fromkeys(("alone", "alone_own", "alone_unseen", "client_mean"), _SHARE),
    **{"p_difference": _DIFFERENCE, "loss": _POSITIVE, "brier": (0.0, 2.0), "seconds": _POSITIVE},
}

_SMALLER_IS_BETTER = {
    *("loss", "ece", "brier", "seconds", "client_std", "worse_off"),
    *("rounds_to_target", "rounds_censored"),
}


def limits(column: str) -> tuple[float, float]:
    """Return the least and the greatest value that a column can have; infinite where not known."""
    return _RANGES.get(column.partition("/")[0], (-math.inf, math.inf))


def interval(column: str, mean: float, half: float) -> tuple[float, float]:
    """Return the ends of an interval, as far as values are possible."""
    low, high = limits(column)
    return max(low, mean - half), min(high, mean + half)


def larger_is_better(column: str) -> bool:
    """Say whether a larger number of a column is the better one; so of metrics not known here."""
    return column.partition("/")[0] not in _SMALLER_IS_BETTER
