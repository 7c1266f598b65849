"""From predictions to the metrics of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fedexp import metrics
from fedexp.metrics import Metric, Predictions

Measures = Mapping[str, Metric]
"""Metric -> what computes it. Made where the run starts, and sent along to wherever clients run."""


def measures(names: Iterable[str]) -> Measures:
    """Look up metrics by name."""
    return {name: metrics.get(name)() for name in names}


def measure(found: Predictions, wanted: Measures) -> dict[str, float]:
    """Return metric -> value of predictions of one example at least."""
    return {name: metric.of(found) for name, metric in wanted.items()}


def needs_probabilities(wanted: Measures) -> bool:
    """Say whether one of the metrics looks at more than labels and losses."""
    return any(metric.needs_probabilities for metric in wanted.values())
