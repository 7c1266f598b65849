"""Figures over finished runs: functions from Results, and a Comparison if one is at hand, to Figures.

found = results.load("results/lesson")
figure = figures.learning_curves(found)
figures.save(figure, "figures/curves")    # curves.png, curves.svg
"""

# ruff: noqa: E402
from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from fedexp.core.plotting import import_matplotlib

import_matplotlib()  # before the modules below do, and stumble over MPLBACKEND

from fedexp.analysis.comparison import Comparison, compare
from fedexp.analysis.figures.clients import gain_bars, partitions
from fedexp.analysis.figures.curves import (
    accuracy_against_bytes,
    accuracy_against_time,
    learning_curves,
    subset_curves,
)
from fedexp.analysis.figures.drawing import NothingToDraw, explain, narrow, png, save, svg
from fedexp.analysis.figures.labels import class_accuracies, confusion_matrices
from fedexp.analysis.figures.ranks import critical_difference
from fedexp.analysis.results import Results

__all__ = [
    "NothingToDraw",
    "accuracy_against_bytes",
    "accuracy_against_time",
    "class_accuracies",
    "confusion_matrices",
    "critical_difference",
    "every",
    "explain",
    "gain_bars",
    "learning_curves",
    "narrow",
    "partitions",
    "png",
    "save",
    "subset_curves",
    "svg",
]

_ALL = {
    "confusion_matrices": (
        confusion_matrices,
        "What isolated clients and the federated model take each label for",
    ),
    "learning_curves": (learning_curves, "Learning curves"),
    "gain_bars": (gain_bars, "What every client gains over isolated training"),
    "class_accuracies": (class_accuracies, "Accuracy of every client on every label"),
    "subset_curves": (subset_curves, "Accuracy on subsets of the labels"),
    "accuracy_against_time": (accuracy_against_time, "Accuracy against time"),
    "accuracy_against_bytes": (accuracy_against_bytes, "Accuracy against bytes sent"),
    "critical_difference": (critical_difference, "Average ranks over settings"),
    "partitions": (partitions, "Who holds what"),
}


class Named(NamedTuple):
    """A figure under its name.

    Attributes:
        name: What its function is called, for file names, with what runs are judged by for accuracy.
        title: What it is about.
        figure: The matplotlib Figure.
    """

    name: str
    title: str
    figure: Any


def every(found: Results, comparison: Comparison | None = None) -> Iterator[Named]:
    """Draw one after another the figures for which the runs have what they need."""
    comparison = comparison or compare(found)
    judged = comparison.goal.metric
    for name, (draw, title) in _ALL.items():
        try:
            figure = draw(found, comparison)
        except NothingToDraw:
            continue
        title = title.replace("Accuracy", judged.capitalize())
        yield Named(name.replace("accuracy_", f"{judged}_"), title, figure)
