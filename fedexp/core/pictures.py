"""Figures of one run, as PNG bytes; drawn without a display and without pyplot's global state."""

from __future__ import annotations

import io
import logging
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from fedexp.core.files import reason
from fedexp.core.plotting import import_matplotlib

log = logging.getLogger("fedexp")

MAX_PANELS = 9
"""Confusion matrices in one figure."""

Counts = npt.NDArray[np.int64]


def drawn(
    pictures: Mapping[str, Callable[[], bytes]],
) -> tuple[dict[str, bytes], list[str]]:
    """Draw pictures; one that cannot be drawn costs that picture alone.

    Args:
        pictures: Name -> function that draws it.

    Returns:
        Name -> PNG of those that were drawn, and a line for each that was not.
    """
    found, problems = {}, []
    for name, draw in pictures.items():
        try:
            found[name] = draw()
        except Exception as error:  # matplotlib, its fonts and its caches fail in many ways
            log.exception("%s.png cannot be drawn", name)
            problems.append(
                f"{name}.png is missing, it cannot be drawn: {reason(error).splitlines()[0]}"
            )
    return found, problems


def warm_up() -> bytes:
    """Import what draws, and have it find its fonts, for a picture that nobody looks at."""
    figure, axes = _figure(1.0, 1.0)
    axes.set_title("0")
    return _png(figure)


def partition_png(
    class_counts: Counts,
    classes: Sequence[str],
    told_apart: str = "label",
    out_of: int | None = None,
) -> bytes:
    """Draw who holds what: one bar per client, stacked by label.

    Args:
        class_counts: Examples per client and label, shape (num_clients, num_classes).
        classes: What the labels are called, num_classes names.
        told_apart: What they are if no labels; empty where there is nothing to tell examples apart by.
        out_of: How many clients there are, of which these were drawn; None where these are all.
    """
    counts = np.ascontiguousarray(class_counts, dtype=np.int64)
    return _partition_png(counts.tobytes(), counts.shape[1], tuple(classes), told_apart, out_of)


# A sweep's runs often share a partition, and drawing it takes a tenth of a short run.
@lru_cache(maxsize=4)
def _partition_png(
    held: bytes, num_classes: int, classes: tuple[str, ...], told_apart: str, out_of: int | None
) -> bytes:
    class_counts = np.frombuffer(held, dtype=np.int64).reshape(-1, num_classes)
    num_clients = len(class_counts)
    # Names of up to 20 labels beside the bars; more of them in small columns that widen the figure.
    columns = 1 if num_classes <= 20 else math.ceil(num_classes / 30)
    font = 10.0 if num_classes <= 20 else 7.0
    legend_width = columns * (0.5 + max(map(len, classes)) * font / 120)
    figure, axes = _figure(min(14.0, 4.0 + 0.25 * num_clients) + legend_width, 4.0)
    draw_partition(axes, class_counts, classes, _colours(num_classes))
    axes.set_title("Training examples per client" + (f" and {told_apart}" if told_apart else ""))
    if out_of is not None and out_of > num_clients:
        axes.set_xticks([])  # their numbers are not 0, 1, 2
        axes.set_xlabel(f"{num_clients:,} of {out_of:,} clients, drawn at random")
    if not told_apart:
        return _png(figure)
    axes.legend(
        reverse=True,  # from top to bottom, as the bars are stacked
        title=told_apart,
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        frameon=False,
        ncols=columns,
        fontsize=font,
        labelspacing=0.5 if num_classes <= 20 else 0.1,
    )
    return _png(figure)


def draw_partition(
    axes: Any, class_counts: Counts, classes: Sequence[str], colours: Sequence[Any]
) -> None:
    """Draw a bar per client, stacked by label.

    Args:
        axes: Where to draw.
        class_counts: Examples per client and label, shape (num_clients, num_classes).
        classes: What the labels are called, num_classes names.
        colours: A colour per label.
    """
    num_clients = len(class_counts)
    tops = np.hstack([np.zeros((num_clients, 1)), class_counts.cumsum(axis=1)])
    for label, (name, colour) in enumerate(zip(classes, colours, strict=True)):
        axes.add_collection(_bars(tops[:, label], tops[:, label + 1], colour, name))
    if num_clients <= 20:
        axes.set_xticks(range(num_clients))
    axes.set_xlim(-0.5 - 0.05 * num_clients, num_clients - 0.5 + 0.05 * num_clients)
    axes.set_ylim(0, 1.05 * tops.max())
    axes.set(xlabel="client", ylabel="training examples")


def confusion_png(matrices: Mapping[int | None, Counts], classes: Sequence[str]) -> bytes:
    """Draw confusion matrices: shares of each true label, in percent where there is room for numbers.

    Args:
        matrices: Partition id, or None for the global model -> counts, shape (num_classes,
            num_classes): rows are true labels, columns predicted ones. The first nine are drawn.
        classes: What the labels are called, num_classes names.
    """
    shown = dict(list(matrices.items())[:MAX_PANELS])
    return _sheet(len(shown), len(matrices), tuple(classes)).png(shown)


class _Sheet:
    """Room for confusion matrices, which is laid out once: a sweep's runs draw theirs on the same.

    Args:
        count: Matrices on it.
        out_of: How many there are.
        classes: What the labels are called.
    """

    def __init__(self, count: int, out_of: int, classes: Sequence[str]) -> None:
        self._classes, self._in_use = classes, threading.Lock()
        columns = min(3, count)
        rows = math.ceil(count / columns)
        # A cell of a matrix too large for numbers is still as high as its label's name.
        self._font = font = 10.0 if len(classes) <= 20 else 6.0
        side = 5.4 if len(classes) <= 20 else max(5.4, 1.2 + len(classes) * 1.3 * font / 72)
        self._figure = figure = _empty_figure(side * columns + 1.0, side * rows)
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        self._panels = [(axes, _empty_matrix(axes, classes, font)) for axes in panels[:count]]
        for axes in panels[count:]:
            axes.set_axis_off()
        _, image = self._panels[-1]
        figure.colorbar(image, ax=panels.tolist(), label="% of the true label's examples")
        if out_of > count:
            figure.suptitle(f"The first {count} of {out_of} clients")

    def png(self, matrices: Mapping[int | None, Counts]) -> bytes:
        """Draw as many matrices as there is room for."""
        numbers: list[Any] = []
        with self._in_use:
            try:
                for (axes, image), (client, counts) in zip(
                    self._panels, matrices.items(), strict=True
                ):
                    accuracy = np.trace(counts) / counts.sum()
                    who = "Global model" if client is None else f"Client {client}, isolated,"
                    axes.set_title(f"{who} on the test set (accuracy {accuracy:.3f})")
                    numbers += _fill(axes, image, counts, self._classes, self._font)
                png = _png(self._figure)
            finally:
                for number in numbers:
                    number.remove()
            self._figure.set_layout_engine("none")
        return png


_sheet = lru_cache(maxsize=1)(_Sheet)


def draw_confusion(axes: Any, counts: Counts, classes: Sequence[str], font: float) -> Any:
    """Draw one matrix: shares of each true label, in percent where there is room for numbers.

    A cell without an example has no number, so that what is never predicted is an empty column.

    Args:
        axes: Where to draw.
        counts: Shape (num_classes, num_classes); rows are true labels, columns predicted ones.
        classes: What the labels are called, num_classes names.
        font: Size of names and numbers, in points.

    Returns:
        The image, for a colour bar from 0 to 100.
    """
    image = _empty_matrix(axes, classes, font)
    _fill(axes, image, counts, classes, font)
    return image


def _empty_matrix(axes: Any, classes: Sequence[str], font: float) -> Any:
    image = axes.imshow(np.zeros([len(classes)] * 2), vmin=0, vmax=100, cmap="Blues")
    rotation = 90 if _are_long(classes) else 0
    axes.set_xticks(range(len(classes)), classes, fontsize=font, rotation=rotation)
    axes.set_yticks(range(len(classes)), classes, fontsize=font)
    axes.set(xlabel="predicted label", ylabel="true label")
    return image


def _fill(axes: Any, image: Any, counts: Counts, classes: Sequence[str], font: float) -> list[Any]:
    """Colour a matrix, and return the numbers that were put into its cells."""
    percent = 100 * counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    image.set_data(percent)
    if len(classes) > 20:
        return []
    # The numbers stay within cells that are as large as these: the layout need not look at each.
    small = len(classes) > 10 or _are_long(classes)
    style = {"ha": "center", "va": "center", "fontsize": font, "in_layout": small}
    found = []
    for row, column in zip(*np.nonzero(counts), strict=True):
        value = percent[row, column]
        ink = "white" if value > 50 else "black"
        found.append(axes.text(column, row, f"{value:.0f}", color=ink, **style))
    return found


def _are_long(classes: Sequence[str]) -> bool:
    return max(map(len, classes)) > 2


def _bars(bottoms: Any, tops: Any, colour: Any, name: str) -> Any:
    """Return a bar per client as one object: a hundred clients of a hundred labels are 10,000 bars."""
    from matplotlib.collections import PolyCollection

    left, right = np.arange(len(tops)) - 0.4, np.arange(len(tops)) + 0.4
    corners = [(left, bottoms), (left, tops), (right, tops), (right, bottoms)]
    bars: Any = np.stack([np.stack(corner, axis=1) for corner in corners], axis=1)
    return PolyCollection(bars, facecolors=[colour], linewidths=0, label=name)


def _colours(num_classes: int) -> Any:
    colormaps = import_matplotlib().colormaps
    palette = colormaps["tab10"] if num_classes <= 10 else colormaps["nipy_spectral"]
    return [palette(k if num_classes <= 10 else k / num_classes) for k in range(num_classes)]


def _figure(width: float, height: float) -> tuple[Any, Any]:
    figure = _empty_figure(width, height)
    return figure, figure.add_subplot()


def _empty_figure(width: float, height: float) -> Any:
    import_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.set_dpi(120)
    figure.canvas.print_png(buffer)  # savefig would draw it twice, the first time for nothing
    return buffer.getvalue()
