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
    import seaborn as sns

    num_clients, num_classes = class_counts.shape
    figure, axes = _figure(min(14.0, 4.0 + 0.25 * num_clients), 4.0)
    bottom = np.zeros(num_clients)
    for label, colour in enumerate(sns.color_palette("tab10" if num_classes <= 10 else "husl", num_classes)):
        heights = class_counts[:, label]
        axes.bar(np.arange(num_clients), heights, bottom=bottom, color=colour, label=str(label))
        bottom += heights
    if num_clients <= 20:
        axes.set_xticks(np.arange(num_clients))
    axes.set(xlabel="client", ylabel="training images", title="Training images per client and label")
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(
        handles[::-1][:20], labels[::-1][:20], title="label", loc="center left",
        bbox_to_anchor=(1.0, 0.5), frameon=False,
    )
    return _png(figure)


def confusion_png(counts: Counts) -> bytes:
    """Draw a confusion matrix: shares of each true label, annotated in percent.

    Args:
        counts: Rows are true labels, columns predicted ones, shape (num_classes, num_classes).
    """
    import seaborn as sns

    share = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    accuracy = np.trace(counts) / counts.sum()
    few = len(counts) <= 20
    figure, axes = _figure(6.4, 5.4)
    sns.heatmap(
        100 * share, ax=axes, vmin=0, vmax=100, cmap="Blues", square=True, annot=few, fmt=".0f",
        cbar_kws={"label": "% of the true label's images"},
    )
    axes.set(
        xlabel="predicted label", ylabel="true label",
        title=f"Global model on the test set (accuracy {accuracy:.3f})",
    )
    return _png(figure)


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
