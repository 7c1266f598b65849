"""Federated means and variances are the pooled ones by arithmetic, from sums alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from fedexp.data.assignment import Assignment
from fedexp.data.scaling import agreed, applied, squares, sums


def _held(*sizes: int) -> Assignment:
    return Assignment.of(np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1]))


def _numbers(mean: float = 0.0) -> npt.NDArray[np.float64]:
    return np.random.default_rng(0).standard_normal((100, 4)) * [1, 10, 0.1, 1] + mean


@pytest.mark.parametrize("mean", [0.0, 1e9])
def test_they_are_the_pooled_ones(mean: float) -> None:
    inputs = _numbers(mean)
    found = agreed(inputs, _held(50, 49, 1))
    np.testing.assert_allclose(found.mean, inputs.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.scale, inputs.std(axis=0), rtol=1e-6)


def test_by_hand() -> None:
    inputs = np.array([[1.0], [3.0], [8.0]])
    first, second = inputs[:2], inputs[2:]
    assert [float(total[0]) for total in (*sums(first), *sums(second))] == [2, 4, 1, 8]
    mean = np.array([4.0])
    assert [float(squares(part, mean)[0]) for part in (first, second)] == [10, 16]
    assert agreed(inputs, _held(2, 1)).scale == pytest.approx(np.sqrt(26 / 3))


def test_rows_that_no_client_trains_on_are_not_looked_at() -> None:
    inputs = _numbers()
    inputs[60:] = 1e6
    found = agreed(inputs, _held(30, 30))
    np.testing.assert_allclose(found.mean, inputs[:60].mean(axis=0))


def test_the_order_of_clients_changes_no_bit() -> None:
    inputs = _numbers()
    there, back = _held(50, 30, 20).parts(), _held(50, 30, 20).parts()[::-1]
    one, other = agreed(inputs, Assignment.of(there)), agreed(inputs, Assignment.of(back))
    assert one.mean.tobytes() == other.mean.tobytes()
    assert one.scale.tobytes() == other.scale.tobytes()


def test_what_is_missing_becomes_the_mean() -> None:
    inputs = _numbers()
    inputs[::3, 1] = np.nan
    found = agreed(inputs, _held(50, 50))
    np.testing.assert_allclose(found.mean[1], np.nanmean(inputs[:, 1]))
    scaled = np.array([True, True, False, False])
    seen = applied(inputs, found, scaled)
    assert seen.dtype == np.float32
    assert (seen[::3, 1] == 0).all()
    np.testing.assert_allclose(seen[:, :2].std(axis=0)[0], 1, rtol=1e-6)
    np.testing.assert_array_equal(seen[:, 2:], inputs[:, 2:].astype(np.float32))


def test_a_column_of_one_value_or_none_becomes_zero() -> None:
    inputs = np.array([[0.1, np.nan, 0.0]] * 7)
    found = agreed(inputs, _held(3, 4))
    assert found.scale.tolist() == [1, 1, 1]
    seen = applied(inputs, found, np.ones(3, dtype=bool))
    np.testing.assert_allclose(seen, 0, atol=1e-7)


def test_a_series_is_scaled_by_channel() -> None:
    inputs = _numbers().reshape(20, 5, 4).transpose(0, 2, 1)
    found = agreed(inputs, _held(10, 10))
    np.testing.assert_allclose(found.mean, inputs.mean(axis=(0, 2)))
    seen = applied(inputs, found, np.ones(4, dtype=bool))
    np.testing.assert_allclose(seen.std(axis=(0, 2)), 1, rtol=1e-5)
