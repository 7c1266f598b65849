"""What models are judged by: a metric, which of two numbers is the better one, and where numbers lie.

A run's summary.json says it where it is not accuracy; one that says nothing is of a classification.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_SHARE, _POSITIVE, _ANY = (0.0, 1.0), (0.0, math.inf), (-math.inf, math.inf)

_RANGES = {
    **dict.fromkeys(("accuracy", "balanced_accuracy", "macro_f1", "top5", "ece", "auroc"), _SHARE),
    **dict.fromkeys(("loss", "mae", "rmse", "seconds"), _POSITIVE),
    **{"brier": (0.0, 2.0), "perplexity": (1.0, math.inf), "r2": (-math.inf, 1.0)},
}

_DIFFERENCES = (
    *("gain", "gain_own", "gain_unseen", "gain_finetune", "to_centralized", "p_difference"),
    *("over_isolated", "over_finetune", "newcomers_over"),
)
_OF_CLIENTS = (
    *("alone", "alone_own", "alone_unseen", "client_mean", "client_worst10"),
    *("own", "own_global", "own_tuned", "newcomers"),
)

_SMALLER_IS_BETTER = {
    *("loss", "ece", "brier", "seconds", "client_std", "worse_off"),
    *("rounds_to_target", "rounds_censored"),
}

_AXES = {
    "accuracy": "accuracy (share of all test examples)",
    "loss": "loss on all test examples (nats)",
}


@dataclass(frozen=True)
class Goal:
    """What runs of one task are judged by.

    Attributes:
        task: ``classification``, ``next_token`` or ``regression``.
        metric: The metric that stands for all.
        lower_is_better: Metrics of which a smaller number is the better one.
        has_labels: Whether models name labels, so that one can be taken for another.
        axes: Metric -> what its axis is called.
    """

    task: str = "classification"
    metric: str = "accuracy"
    lower_is_better: frozenset[str] = frozenset()
    has_labels: bool = True
    axes: Mapping[str, str] = field(default_factory=lambda: _AXES)

    @property
    def sign(self) -> int:
        """1 where a larger number of the metric is the better one, else -1.

        Gains and other differences are turned by it, so that what is above 0 is better.
        """
        return 1 if self.larger_is_better(self.metric) else -1

    @property
    def at_least(self) -> str:
        """What comes before a value that is to be reached."""
        return "at least" if self.sign > 0 else "at most"

    def limits(self, column: str) -> tuple[float, float]:
        """Return the least and the greatest value that a column can have; infinite where not known."""
        name = column.partition("/")[0]
        if name in _DIFFERENCES:
            low, high = _RANGES.get(self.metric, _ANY)
            return low - high, high - low
        return _RANGES.get(self.metric if name in _OF_CLIENTS else name, _ANY)

    def interval(self, column: str, mean: float, half: float) -> tuple[float, float]:
        """Return the ends of an interval, as far as values are possible."""
        low, high = self.limits(column)
        return max(low, mean - half), min(high, mean + half)

    def larger_is_better(self, column: str) -> bool:
        """Say whether a larger number of a column is the better one; so of metrics not known here."""
        name, _, metric = column.partition("/")
        if name in _OF_CLIENTS:
            name = metric or self.metric
        return name not in _SMALLER_IS_BETTER and name not in self.lower_is_better

    def better(self, value: float, other: float) -> bool:
        """Say whether a value of the metric is better than another one."""
        return self.sign * (value - other) > 0


ACCURACY = Goal()


def goal_of(told: str | None) -> Goal:
    """Return what summary.json says under ``task``, as :func:`told_by` keeps it."""
    if told is None:
        return ACCURACY
    content = json.loads(told)
    return Goal(
        str(content["name"]),
        str(content["headline"]),
        frozenset(map(str, content["lower_is_better"])),
        bool(content["confusion"]),
        {str(name): str(words) for name, words in content["axes"].items()},
    )


def told_by(summary: Mapping[str, Any]) -> str | None:
    """Return what summary.json says of the task, in one word of text; None where it says nothing."""
    return json.dumps(summary["task"], sort_keys=True) if "task" in summary else None
