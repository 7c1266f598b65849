from __future__ import annotations

import io
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.image import imread

from fedexp.core import pictures
from fedexp.core.pictures import confusion_png, drawn, partition_png
from fedexp.datasets.cifar100 import Cifar100
from fedexp.datasets.emnist import Emnist
from fedexp.datasets.fashion_mnist import FashionMnist


@pytest.fixture(autouse=True)
def _no_sheet_is_left() -> Iterator[None]:
    """Some tests draw nothing on theirs."""
    yield
    pictures._sheet.cache_clear()


def _pixels(png: bytes) -> np.ndarray:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    picture: np.ndarray = imread(io.BytesIO(png))
    return picture


@pytest.mark.parametrize(("num_clients", "num_classes"), [(1, 10), (3, 10), (25, 12), (200, 10)])
def test_partition_figure_has_bars(num_clients: int, num_classes: int) -> None:
    counts = np.arange(num_clients * num_classes).reshape(num_clients, num_classes) + 1
    picture = _pixels(partition_png(counts, "abcdefghijkl"[:num_classes]))
    # Four inches at 120 dots an inch; the width is 4 + 0.25 a client, 14 at most, and 70 dots for the
    # legend of names of one letter.
    assert picture.shape[0] == 480
    assert picture.shape[1] == pytest.approx(120 * min(14.0, 4.0 + 0.25 * num_clients) + 70, abs=1)
    colours = {tuple(pixel) for pixel in (picture[:, :, :3] * 255).astype(int).reshape(-1, 3)}
    assert (31, 119, 180) in colours or num_classes > 10  # the first label's blue


@pytest.mark.parametrize(
    ("panels", "classes"),
    [(1, "0123456789"), (2, ["ankle boot", "coat", "bag"]), (1, [str(k) for k in range(12)])],
)
def test_figures_are_drawn_once_and_are_what_savefig_writes(
    panels: int, classes: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    size = len(classes)
    counts = np.arange(size * size).reshape(size, size) + 1
    counts[0] = [100, *[0] * (size - 1)]  # a number as wide as they come, at the edge

    def drawings() -> list[bytes]:
        matrices: dict[int | None, Any] = dict.fromkeys(range(panels), counts)
        return [confusion_png(matrices, classes), partition_png(counts, classes)]

    ours, text = drawings(), Axes.text

    def saved(figure: Any) -> bytes:
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=120)
        return buffer.getvalue()

    monkeypatch.setattr(pictures, "_png", saved)
    monkeypatch.setattr(Axes, "text", lambda *a, **k: text(*a, **{**k, "in_layout": True}))
    assert drawings() == ours


def test_figures_are_the_same_every_time() -> None:
    counts = np.array([[5, 1], [0, 4]])
    assert partition_png(counts, "ab") == partition_png(counts, "ab")
    assert confusion_png({None: counts}, "ab") == confusion_png({None: counts}, "ab")


@pytest.mark.parametrize(
    ("count", "classes"),
    [(1, "ab"), (12, ("cat", "dog")), (1, tuple(f"k{n}" for n in range(21)))],
    ids=["one", "too many", "no numbers"],
)
def test_a_later_run_of_a_sweep_gets_the_picture_that_it_would_get_alone(
    count: int, classes: Sequence[str]
) -> None:
    def matrices(seed: int) -> dict[int | None, Any]:
        drawn = np.random.default_rng(seed).integers(0, 9, (count, len(classes), len(classes)))
        return {k: one + np.eye(len(classes), dtype=int) for k, one in enumerate(drawn)}

    after_another = [confusion_png(matrices(seed), classes) for seed in (0, 1)][1]
    pictures._sheet.cache_clear()
    assert after_another == confusion_png(matrices(1), classes)


def test_confusion_shows_shares_of_the_true_label() -> None:
    # Both matrices are 75 % and 25 % of the first label, 0 % and 100 % of the second, and 80 % of
    # each five images lie on the diagonal.
    small, large = np.array([[3, 1], [0, 1]]), np.array([[30, 10], [0, 10]])
    assert confusion_png({None: small}, "ab") == confusion_png({None: large}, "ab")
    assert confusion_png({None: small}, "ab") != confusion_png({None: small.T}, "ab")


def test_isolated_clients_have_a_matrix_each_up_to_nine(monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Any] = []
    monkeypatch.setattr("fedexp.core.pictures._png", figures.append)
    confusion_png({k: np.array([[3, 1], [k, 1]]) for k in range(12)}, "ab")
    (figure,) = figures
    assert figure.get_suptitle() == "The first 9 of 12 clients"
    titles = [axes.get_title() for axes in figure.axes[:9]]
    assert titles[0] == "Client 0, isolated, on the test set (accuracy 0.800)"  # 4 of 5
    assert titles[8].startswith("Client 8, isolated, on the test set (accuracy 0.308")  # 4 of 13


def test_a_label_without_images_is_no_division_by_zero() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        _pixels(confusion_png({None: np.array([[2, 0], [0, 0]])}, "ab"))


def test_names_stand_in_the_figures() -> None:
    counts = np.array([[5, 1], [0, 4]])
    assert confusion_png({None: counts}, ("cat", "dog")) != confusion_png(
        {None: counts}, ("cat", "cow")
    )
    assert partition_png(counts, ("cat", "dog")) != partition_png(counts, ("cat", "cow"))


@pytest.mark.parametrize(
    "classes",
    [
        FashionMnist().spec.classes,
        Emnist(split="byclass").spec.classes,
        Cifar100().spec.classes,
    ],
    ids=len,
)
def test_the_names_of_all_labels_have_room(
    classes: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Any] = []

    def laid_out(figure: Any) -> bytes:
        figure.draw_without_rendering()
        figures.append(figure)
        return b""

    monkeypatch.setattr("fedexp.core.pictures._png", laid_out)
    counts = np.eye(len(classes), dtype=np.int64)
    confusion_png({None: counts}, classes)
    partition_png(counts, classes)
    confusion, partition = figures
    for axis, end in ((confusion.axes[0].xaxis, 0), (confusion.axes[0].yaxis, 1)):
        boxes = [label.get_window_extent() for label in axis.get_ticklabels()]
        assert len(boxes) == len(classes)
        places = sorted((box.min[end], box.max[end]) for box in boxes)
        assert all(high <= low for (_, high), (low, _) in pairwise(places))
    legend = partition.axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == list(classes)[::-1]
    assert all(partition.bbox.contains(*corner) for corner in legend.get_window_extent().corners())


def test_a_picture_that_cannot_be_drawn_costs_that_picture() -> None:
    def fails() -> bytes:
        raise RuntimeError("no font\nat all")

    pictures, problems = drawn({"one": fails, "two": lambda: b"png"})
    assert pictures == {"two": b"png"}
    (problem,) = problems
    assert problem.startswith("one.png is missing")
    assert "no font" in problem
    assert "\n" not in problem


_IMPORTS = """
import os, sys
from fedexp.core.plotting import import_matplotlib
name = import_matplotlib().rcParams["backend"]
from fedexp.core.pictures import partition_png
import numpy as np
print(name, os.environ["MPLBACKEND"], len(partition_png(np.array([[1, 2], [3, 0]]), "ab")) > 1000)
"""


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ("inline", False),
        pytest.param("module://matplotlib_inline.backend_inline", False, marks=pytest.mark.slow),
        pytest.param("svg", True, marks=pytest.mark.slow),
    ],
)
def test_pictures_are_drawn_whatever_the_notebook_asks_for(told: str, kept: bool) -> None:
    # Where the backend of a notebook is installed, its name is one that matplotlib takes.
    found = subprocess.run(
        [sys.executable, "-c", _IMPORTS],
        env={**os.environ, "MPLBACKEND": told},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.stderr == ""
    backend, variable, drew = found.stdout.split()
    assert (variable, drew) == (told, "True")
    if kept:
        assert backend == told


def test_clients_that_were_drawn_are_not_numbered_from_0() -> None:
    counts = np.array([[1, 2], [3, 0]])
    assert partition_png(counts, "ab", "label", 2) == partition_png(counts, "ab")
    assert partition_png(counts, "ab", "label", 100_000_000) != partition_png(counts, "ab")
