"""Figures of one run, as PNG bytes; drawn without a display and without pyplot's global state."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]


def partition_png(class_counts: Counts) -> bytes:
    """Draw who holds what: one bar per client, stacked by label.

    Args:
        class_counts: Images per client and label, shape (num_clients, num_classes).
    """
    num_clients, num_classes = class_counts.shape
    figure, axes = _figure(min(14.0, 4.0 + 0.25 * num_clients), 4.0)
    colours = _colours(num_classes)
    tops = np.cumsum(class_counts, axis=1)
    for label in range(num_classes):
        top, bottom = tops[:, label], tops[:, label] - class_counts[:, label]
        if num_clients <= 50:
            axes.bar(range(num_clients), top - bottom, bottom=bottom, color=colours[label])
        else:  # one shape a label: thousands of bars would take seconds, and their gaps would flicker
            edges = np.arange(num_clients + 1) - 0.5
            axes.stairs(top, edges, baseline=bottom, fill=True, color=colours[label])
    if num_clients <= 20:
        axes.set_xticks(range(num_clients))
    axes.set_xlim(-0.6, num_clients - 0.4)
    axes.set_ylim(0, 1.05 * tops[:, -1].max())
    axes.set(
        xlabel="client", ylabel="training images", title="Training images per client and label"
    )
    _label_key(figure, axes, colours)
    return _png(figure)


def _label_key(figure: Any, axes: Any, colours: list[Any]) -> None:
    """Say which colour is which label, in the order of the stack: a legend, or a scale for many."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import BoundaryNorm, ListedColormap
    from matplotlib.patches import Patch

    if len(colours) > 20:
        norm = BoundaryNorm(np.arange(len(colours) + 1) - 0.5, len(colours))
        scale = ScalarMappable(norm, ListedColormap(colours))
        ticks = range(0, len(colours), 10)
        figure.colorbar(scale, ax=axes, label="label", ticks=ticks, pad=0.01)
        return
    patches = [Patch(color=colour, label=str(label)) for label, colour in enumerate(colours)]
    axes.legend(
        handles=patches[::-1],
        title="label",
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        fontsize="medium" if len(patches) <= 10 else "x-small",
        frameon=False,
    )


def confusion_png(counts: Counts) -> bytes:
    """Draw a confusion matrix: shares of each true label, annotated in percent.

    Args:
        counts: Rows are true labels, columns predicted ones, shape (num_classes, num_classes).
    """
    percent = 100 * counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    accuracy = np.trace(counts) / counts.sum()
    figure, axes = _figure(6.4, 5.4)
    image = axes.imshow(percent, vmin=0, vmax=100, cmap="Blues")
    figure.colorbar(image, label="% of the true label's images")
    if len(counts) <= 20:
        axes.set_xticks(range(len(counts)))
        axes.set_yticks(range(len(counts)))
        for (row, column), value in np.ndenumerate(percent):
            ink = "white" if value > 50 else "black"
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=ink)
    axes.set(
        xlabel="predicted label",
        ylabel="true label",
        title=f"Global model on the test set (accuracy {accuracy:.3f})",
    )
    return _png(figure)


def _colours(num_classes: int) -> list[Any]:
    from matplotlib import colormaps

    if num_classes <= 20:
        palette = colormaps["tab10" if num_classes <= 10 else "tab20"]
        return [palette(label) for label in range(num_classes)]
    return [colormaps["turbo"](label / (num_classes - 1)) for label in range(num_classes)]


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
