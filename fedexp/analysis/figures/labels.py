"""Figures of what models make of every label: confusion matrices, and accuracies by client and label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import seaborn
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from fedexp.analysis import results
from fedexp.analysis.comparison import Comparison
from fedexp.analysis.figures.drawing import (
    SMALL,
    WARNING,
    NothingToDraw,
    View,
    explain,
    is_narrow,
    label_names,
    new,
    outer,
    panels,
    wrapped,
)
from fedexp.analysis.results import ISOLATED, Results
from fedexp.core.pictures import draw_confusion

MAX_ISOLATED = 3
"""Confusion matrices of isolated clients."""

MAX_CLIENTS = 100
"""Rows of the heat map."""

_FRAMED = "A frame marks a label that the client holds no training example of"
_COMPARED = "federated rows compared with isolated clients"

Matrix = npt.NDArray[np.int64]


class _Pair(NamedTuple):
    """The runs to show: a federated one, and isolated clients of the same seed and partition.

    Attributes:
        row: Name of the federated run's row; of the only run's, where there is one.
        together: A run with a global model.
        alone: A run of isolated clients.
    """

    row: str
    together: int | None
    alone: int | None

    @property
    def first(self) -> int:
        """One of the two runs, whose seed and labels are those of both."""
        run = self.together if self.alone is None else self.alone
        assert run is not None
        return run


class _Panel(NamedTuple):
    """A confusion matrix, and the labels that the client never saw."""

    title: str
    matrix: Matrix
    unseen: Sequence[int]


def confusion_matrices(
    found: Results, comparison: Comparison | None = None, columns: int = 4
) -> Any:
    """Draw isolated clients' confusion matrices beside the best federated row's, of one seed.

    Of more than three isolated clients the best, the median and the worst are shown.

    Args:
        found: What was read from disk.
        comparison: Of the same runs; None compares them with the defaults.
        columns: Matrices beside each other; 2 suits a narrow screen.

    Returns:
        A matplotlib Figure.

    Raises:
        NothingToDraw: If models name no labels.
    """
    view = View(found, comparison)
    _require_labels(view)
    pair = _pair(view)
    shown, left_out = _isolated_panels(view, pair)
    shown += _global_panels(view, pair)
    classes = _classes(view, pair, len(shown[0].matrix))
    beside = min(columns, len(shown))
    small = len(classes) <= 20
    side = 2.7 if is_narrow() else 3.3 if small else 5.5
    titles = [f"{panel.title}\naccuracy {_accuracy(panel.matrix):.3f}" for panel in shown]
    room = 0.17 * (1 + max(title.count("\n") for title in titles))
    height = (side + room) * math.ceil(len(shown) / beside) + 0.5
    figure = new(side * beside + 0.9, height, layout="compressed")
    axes = panels(figure, len(shown), beside)
    font = (SMALL if len(classes) <= 10 else 5.5) if small else 4.5
    for number, (panel, (_, matrix, unseen)) in enumerate(zip(axes, shown, strict=True)):
        image = draw_confusion(panel, matrix, classes, font)
        panel.set_title(titles[number], fontsize=10)
        if panel not in outer(axes, beside):
            panel.set_ylabel("")
        for label in unseen:
            _frame(panel, label - 0.5, -0.5, 1, len(classes))
    colours = figure.colorbar(image, ax=axes, fraction=0.02, aspect=30)
    colours.set_label("% of the true label's examples", fontsize=SMALL)
    framed = _FRAMED if any(panel.unseen for panel in shown) else ""
    explain(figure, _which_runs(view, pair), left_out, framed)
    return figure


def class_accuracies(found: Results, comparison: Comparison | None = None) -> Any:
    """Draw accuracy by client and label, isolated beside federated, with never-seen labels marked.

    Args:
        found: What was read from disk.
        comparison: Of the same runs; None compares them with the defaults.

    Returns:
        A matplotlib Figure.

    Raises:
        NothingToDraw: If models name no labels, or no federated run is compared with isolated clients.
    """
    view = View(found, comparison)
    _require_labels(view)
    pair = _pair(view)
    if pair.together is None or pair.alone is None:
        raise NothingToDraw("no federated run is compared with isolated clients (local_only)")
    held = np.array(results.partition(view.found.path(pair.alone))["class_counts"])
    apart = results.confusion(view.found.path(pair.alone))
    (together,) = results.confusion(view.found.path(pair.together)).values()
    num_clients, held = len(held), held[:MAX_CLIENTS]
    clients = range(len(held))
    classes = _classes(view, pair, held.shape[1])
    sides = {
        "isolated clients": np.array([_shares(apart[client]) for client in clients]),
        f"federated: {pair.row}": np.array([_shares(together) for _ in clients]),
    }
    cell = float(np.clip(6 / len(clients), 0.09, 0.4))
    wide = float(np.clip(0.42 * len(classes), 3.5, 7.0))
    figure = new(2 * wide + 1.8, max(3.0, cell * len(clients) + 1.7))
    axes = panels(figure, 2, 2, sharey=True)
    for panel, (title, values) in zip(axes, sides.items(), strict=True):
        _heat(panel, values, classes)
        panel.set_title(wrapped(title), fontsize=10)
        for client, label in zip(*np.nonzero(held == 0), strict=True):
            _frame(panel, label, client, 1, 1, thin=len(clients) > 30)
    axes[0].set_ylabel("client")
    colours = figure.colorbar(axes[0].collections[0], ax=axes, fraction=0.02, aspect=30)
    colours.set_label("accuracy on the label's examples", fontsize=SMALL)
    cut = f"The first {len(held)} of {num_clients} clients are shown"
    explain(
        figure,
        _FRAMED if (held == 0).any() else "",
        _which_runs(view, pair),
        "The federated model is the same for all clients",
        cut if len(held) < num_clients else "",
    )
    return figure


def shown(found: Results, comparison: Comparison) -> tuple[str, bool]:
    """Return the row that :func:`confusion_matrices` is of, and whether it frames labels."""
    view = View(found, comparison)
    pair = _pair(view)
    isolated, _ = _isolated_panels(view, pair)
    return pair.row, any(panel.unseen for panel in isolated)


def _require_labels(view: View) -> None:
    if not view.goal.has_labels:
        raise NothingToDraw("the models name no labels")


def _pair(view: View) -> _Pair:
    """Choose the best federated row that is compared with isolated clients; else what there is."""
    pairs, merit = view.comparison.pairs, view.merit()
    ordered = sorted(view.federated, key=lambda row: -merit[row])
    for row in ordered:
        for run in view.runs(row):
            if run in pairs:
                return _Pair(row, run, pairs[run])
    if ordered:
        return _Pair(ordered[0], view.runs(ordered[0])[0], None)
    row = max(view.rows, key=lambda name: (view.kind(name) == ISOLATED, merit[name]))
    run = view.runs(row)[0]
    return _Pair(row, None, run) if view.kind(row) == ISOLATED else _Pair(row, run, None)


def _isolated_panels(view: View, pair: _Pair) -> tuple[list[_Panel], str]:
    """Return the isolated clients to show, and a note on those that are not."""
    if pair.alone is None:
        return [], ""
    folder = view.found.path(pair.alone)
    held = results.partition(folder)["class_counts"]
    matrices = {k: m for k, m in results.confusion(folder).items() if k is not None}
    chosen = _choose(matrices)
    unseen = {
        client: [k for k, count in enumerate(counts) if not count]
        for client, counts in enumerate(held)
    }
    shown = [
        _Panel(f"Client {client}, isolated{what}", matrices[client], unseen[client])
        for client, what in chosen.items()
    ]
    left_out = f"{len(chosen)} of {len(matrices)} isolated clients are shown"
    return shown, left_out if len(chosen) < len(matrices) else ""


def _choose(matrices: dict[int, Matrix]) -> dict[int, str]:
    """Return clients, and what to call them: all of few; else the best, the median and the worst."""
    if len(matrices) <= MAX_ISOLATED:
        return dict.fromkeys(matrices, "")
    ordered = sorted(matrices, key=lambda client: -_accuracy(matrices[client]))
    return {
        ordered[0]: " (best)",
        ordered[len(ordered) // 2]: " (median)",
        ordered[-1]: " (worst)",
    }


def _global_panels(view: View, pair: _Pair) -> list[_Panel]:
    if pair.together is None:
        return []
    name = "Federated" if pair.row in view.federated else "All data"
    matrices = results.confusion(view.found.path(pair.together))
    return [_Panel(f"{name}: {wrapped(pair.row)}", matrix, []) for matrix in matrices.values()]


def _accuracy(matrix: Matrix) -> float:
    return float(np.trace(matrix) / max(1, matrix.sum()))


def _shares(matrix: Matrix) -> npt.NDArray[np.float64]:
    """Return the accuracy on every label's examples, NaN for a label without any."""
    totals = matrix.sum(axis=1)
    return np.where(totals > 0, matrix.diagonal() / np.maximum(1, totals), np.nan)


def _classes(view: View, pair: _Pair, number: int) -> list[str]:
    return label_names(results.partition(view.found.path(pair.first)), number)


def _which_runs(view: View, pair: _Pair) -> str:
    """Say which runs are shown."""
    merit, several = view.merit(), pair.row in view.federated and len(view.federated) > 1
    first = all(merit[pair.row] >= merit[row] for row in view.federated)
    which = "federated row with the best accuracy" if first else f"best of the {_COMPARED}"
    best = f"{pair.row} is the {which}. " if several else ""
    return (
        f"{best}Seed {view.found.runs['seed'][pair.first]}, whole test set {view.comparison.moment}"
    )


def _frame(
    axes: Any, left: float, top: float, width: float, height: float, thin: bool = False
) -> None:
    """Frame labels never seen, on the axes' edge too."""
    box = Rectangle((left, top), width, height, fill=False, edgecolor=WARNING)
    box.set(linewidth=0.5 if thin else 1.5, clip_on=False, zorder=5)
    if not thin:  # white around it, which shows on dark cells in grey print too
        box.set_path_effects([withStroke(linewidth=3.5, foreground="white")])
    axes.add_patch(box)


def _heat(axes: Any, values: Any, classes: Sequence[str]) -> None:
    num_clients, num_classes = values.shape
    seaborn.heatmap(
        pd.DataFrame(values, columns=list(classes)),
        **{"ax": axes, "vmin": 0, "vmax": 1, "cmap": "Blues", "cbar": False, "rasterized": True},
        **{"annot": num_clients <= 20 and num_classes <= 10, "fmt": ".2f"},
        annot_kws={"fontsize": 7},
        xticklabels=1,
        yticklabels=1 if num_clients <= 30 else 10,
    )
    axes.tick_params(axis="y", labelrotation=0)
    long = max(map(len, classes)) > 2
    size = SMALL if num_classes <= 20 else 5
    axes.tick_params(axis="x", labelrotation=90 if long else 0, labelsize=size)
    axes.set_xlabel("label")
