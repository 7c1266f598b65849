from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
from matplotlib.image import imread

from fedexp.plots import confusion_png, partition_png


def _pixels(png: bytes) -> np.ndarray:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    picture: np.ndarray = imread(io.BytesIO(png))
    return picture


@pytest.mark.parametrize(("num_clients", "num_classes"), [(1, 10), (3, 10), (25, 12), (200, 10)])
def test_partition_figure_has_bars(num_clients: int, num_classes: int) -> None:
    counts = np.arange(num_clients * num_classes).reshape(num_clients, num_classes) + 1
    picture = _pixels(partition_png(counts))
    # Four inches at 120 dots an inch; the width is 4 + 0.25 a client, 14 at most.
    assert picture.shape[0] == 480
    assert picture.shape[1] == int(120 * min(14.0, 4.0 + 0.25 * num_clients))
    colours = {tuple(pixel) for pixel in (picture[:, :, :3] * 255).astype(int).reshape(-1, 3)}
    assert (31, 119, 180) in colours or num_classes > 10  # the first label's blue


def test_figures_are_the_same_every_time() -> None:
    counts = np.array([[5, 1], [0, 4]])
    assert partition_png(counts) == partition_png(counts)
    assert confusion_png(counts) == confusion_png(counts)


def test_confusion_shows_shares_of_the_true_label() -> None:
    # Both matrices are 75 % and 25 % of the first label, 0 % and 100 % of the second, and 80 % of
    # each five images lie on the diagonal.
    small, large = np.array([[3, 1], [0, 1]]), np.array([[30, 10], [0, 10]])
    assert confusion_png(small) == confusion_png(large)
    assert confusion_png(small) != confusion_png(small.T)


def test_a_label_without_images_is_no_division_by_zero() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        _pixels(confusion_png(np.array([[2, 0], [0, 0]])))


def test_a_large_matrix_is_drawn_without_numbers() -> None:
    _pixels(confusion_png(np.eye(30, dtype=np.int64)))
