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
    bottom = np.zeros(num_clients)
    for label in range(num_classes):
        heights = class_counts[:, label]
        axes.bar(range(num_clients), heights, bottom=bottom, color=colours[label], label=str(label))
        bottom += heights
    if num_clients <= 20:
        axes.set_xticks(range(num_clients))
    axes.set_ylim(0, 1.05 * bottom.max())
    axes.set(
        xlabel="client", ylabel="training images", title="Training images per client and label"
    )
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(
        handles[::-1][:20],
        labels[::-1][:20],
        title="label",
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        frameon=False,
    )
    return _png(figure)


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


def _colours(num_classes: int) -> Any:
    from matplotlib import colormaps

    palette = colormaps["tab10"] if num_classes <= 10 else colormaps["nipy_spectral"]
    return [palette(k if num_classes <= 10 else k / num_classes) for k in range(num_classes)]


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
