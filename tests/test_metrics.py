from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    balanced_accuracy_score,
    brier_score_loss,
    f1_score,
    mean_absolute_error,
    r2_score,
    roc_auc_score,
    root_mean_squared_error,
    top_k_accuracy_score,
)

from fedexp import metrics
from fedexp.metrics import Predictions

LOG2 = math.log(2)


def _of(name: str, found: Predictions) -> float:
    value = metrics.get(name)().of(found)
    assert type(value) is float
    return value


def _labels(targets: list[int], labels: list[int]) -> Predictions:
    return Predictions(np.array(targets), np.array(labels), np.zeros(len(targets)))


def _sure(targets: list[int], probabilities: list[list[float]]) -> Predictions:
    odds, truth = np.array(probabilities), np.array(targets)
    losses = -np.log(np.maximum(odds[np.arange(len(truth)), truth], 1e-12))
    return Predictions(truth, odds.argmax(1), losses, odds)


def _random(seed: int, count: int, num_classes: int) -> Predictions:
    rng = np.random.default_rng(seed)
    odds = rng.dirichlet(np.full(num_classes, 0.5), count)
    return _sure(rng.integers(0, num_classes, count).tolist(), odds.tolist())


# Of 6 examples, 3 of label 0 (2 right), 2 of label 1 (1 right), 1 of label 2 (taken for 0).
SIX = _labels([0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 0, 0])


def test_accuracy_by_hand() -> None:
    assert _of("accuracy", SIX) == 3 / 6


def test_loss_by_hand() -> None:
    found = Predictions(np.array([0, 1]), np.array([0, 1]), np.array([LOG2, 3 * LOG2]))
    assert _of("loss", found) == pytest.approx(2 * LOG2)


def test_balanced_accuracy_by_hand() -> None:
    assert _of("balanced_accuracy", SIX) == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    # A label that is only predicted has no examples to be right about.
    assert _of("balanced_accuracy", _labels([0, 0, 3], [0, 7, 3])) == pytest.approx(3 / 4)


def test_macro_f1_by_hand() -> None:
    # Label 0: precision 2/4, recall 2/3; label 1: 1/2 and 1/2; label 2: never predicted, 0.
    first = 2 * (1 / 2) * (2 / 3) / (1 / 2 + 2 / 3)
    assert _of("macro_f1", SIX) == pytest.approx((first + 1 / 2 + 0) / 3)
    # A label that is only predicted counts, as 0: precision 0 of 1.
    assert _of("macro_f1", _labels([0, 0], [0, 7])) == pytest.approx((2 / 3 + 0) / 2)


def test_top5_by_hand() -> None:
    odds = [0.3, 0.2, 0.15, 0.12, 0.1, 0.08, 0.05]
    assert _of("top5", _sure([0, 4, 5, 6], [odds] * 4)) == 2 / 4
    assert _of("top5", _sure([1, 2], [[0.1, 0.2, 0.7]] * 2)) == 1.0, "of three labels all are"


def test_of_equally_probable_labels_the_lower_counts_first() -> None:
    even = [[1 / 8] * 8] * 8
    assert _of("top5", _sure(list(range(8)), even)) == 5 / 8
    # One is likelier; of the seven others the four lowest count.
    one = [[0.1] * 7 + [0.3]] * 8
    assert _of("top5", _sure(list(range(8)), one)) == 5 / 8
    assert _of("top5", _sure([4], one[:1])) == 0.0
    assert _of("top5", _sure([3, 7], one[:2])) == 1.0


def test_brier_by_hand() -> None:
    found = _sure([0, 2], [[0.7, 0.2, 0.1], [0.5, 0.5, 0.0]])
    # 0.3^2 + 0.2^2 + 0.1^2, and 0.5^2 + 0.5^2 + 1^2.
    assert _of("brier", found) == pytest.approx((0.14 + 1.5) / 2)
    assert _of("brier", _sure([0], [[1.0, 0.0]])) == 0.0
    assert _of("brier", _sure([1], [[1.0, 0.0]])) == 2.0


def test_calibration_error_by_hand() -> None:
    # 15 bins of 1/15. Two share the bin (9/15, 10/15]: sure 0.61 and 0.65, one of them right; one is
    # sure 0.9 and right, in (13/15, 14/15].
    found = _sure([0, 1, 0], [[0.61, 0.39], [0.65, 0.35], [0.9, 0.1]])
    expected = 2 / 3 * abs(1 / 2 - 0.63) + 1 / 3 * abs(1 - 0.9)
    assert _of("ece", found) == pytest.approx(expected)
    assert _of("ece", _sure([0], [[1.0, 0.0]])) == 0.0
    assert _of("ece", _sure([1], [[1.0, 0.0]])) == 1.0


def test_a_bin_holds_its_upper_end() -> None:
    # 0.6 = 9/15 belongs to the bin of 0.58, not to that of 0.62: alone, the errors do not cancel.
    def both(low: float, high: float) -> float:
        return _of("ece", _sure([0, 1], [[low, 1 - low], [high, 1 - high]]))

    assert both(0.58, 0.6) == pytest.approx(abs((1 - 0.58) - 0.6) / 2)
    assert both(0.6, 0.62) == pytest.approx(((1 - 0.6) + 0.62) / 2)


def _ece(found: Predictions, num_bins: int = 15) -> float:
    """Compute the error as Guo et al. write it, bin by bin."""
    assert found.probabilities is not None
    sure, right = found.probabilities.max(1), found.labels == found.targets
    total = 0.0
    for k in range(num_bins):
        inside = (sure > k / num_bins) & (sure <= (k + 1) / num_bins)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - sure[inside].mean())
    return total


def _brier(found: Predictions) -> float:
    assert found.probabilities is not None
    truth = np.eye(found.probabilities.shape[1])[found.targets]
    return float(((found.probabilities - truth) ** 2).sum(1).mean())


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 80), st.integers(2, 12))
def test_others_compute_the_same(seed: int, count: int, num_classes: int) -> None:
    found = _random(seed, count, num_classes)
    with np.errstate(all="raise"):
        assert _of("balanced_accuracy", found) == pytest.approx(_recall(found))
        assert _of("macro_f1", found) == pytest.approx(_macro_f1(found))
        assert _of("brier", found) == pytest.approx(_brier(found))
        assert _of("ece", found) == pytest.approx(_ece(found))
        assert _of("accuracy", found) == pytest.approx((found.labels == found.targets).mean())


def _recall(found: Predictions) -> float:
    recalls = [(found.labels[found.targets == k] == k).mean() for k in np.unique(found.targets)]
    return float(np.mean(recalls))


def _macro_f1(found: Predictions) -> float:
    scores = []
    for k in np.union1d(found.targets, found.labels):
        hits = ((found.labels == k) & (found.targets == k)).sum()
        scores.append(2 * hits / ((found.labels == k).sum() + (found.targets == k).sum()))
    return float(np.mean(scores))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_scikit_learn_computes_the_same(seed: int) -> None:
    found = _random(seed, 60, 9)
    assert found.probabilities is not None
    truth, labels = found.targets, found.labels
    assert _of("balanced_accuracy", found) == pytest.approx(balanced_accuracy_score(truth, labels))
    f1 = f1_score(truth, labels, average="macro", zero_division=0)
    assert _of("macro_f1", found) == pytest.approx(f1)
    names = list(range(9))
    top5 = top_k_accuracy_score(truth, found.probabilities, k=5, labels=names)
    assert _of("top5", found) == pytest.approx(top5)
    brier = brier_score_loss(truth, found.probabilities, labels=names, scale_by_half=False)
    assert _of("brier", found) == pytest.approx(brier)


OF_LABELS = [n for n in metrics.choices() if "classification" in metrics.get(n).tasks]


@pytest.mark.parametrize("name", OF_LABELS)
@pytest.mark.parametrize("right", [True, False])
def test_one_example_is_enough(name: str, right: bool) -> None:
    found = _sure([0 if right else 6], [[0.4, 0.3, 0.1, 0.1, 0.05, 0.04, 0.01]])
    expected = {
        "loss": -math.log(0.4 if right else 0.01),
        "ece": 0.6 if right else 0.4,
        "auroc": 0.5,  # nothing to be told apart
        "brier": 0.36 + 0.09 + 0.02 + 0.0025 + 0.0016 + 0.0001
        if right
        else 0.16 + 0.09 + 0.02 + 0.0025 + 0.0016 + 0.9801,
    }
    assert _of(name, found) == pytest.approx(expected.get(name, float(right)))


@pytest.mark.parametrize("name", OF_LABELS)
def test_what_is_perfect_is_best(name: str) -> None:
    perfect = _sure([0, 1, 2], np.eye(7)[:3].tolist())
    metric = metrics.get(name)()
    assert _of(name, perfect) == pytest.approx(1.0 if metric.higher_is_better else 0.0)
    assert metric.higher_is_better == (name not in ("loss", "brier", "ece"))
    assert metric.needs_probabilities == (name in ("auroc", "brier", "ece", "top5"))


def test_the_number_is_that_of_the_selection() -> None:
    found = _random(0, 20, 7)
    mask = found.targets < 3
    part = found.select(mask)
    assert len(part) == mask.sum()
    assert part.targets.tolist() == found.targets[mask].tolist()
    assert part.labels.tolist() == found.labels[mask].tolist()
    assert part.losses.tolist() == found.losses[mask].tolist()
    assert found.probabilities is not None
    assert part.probabilities is not None
    assert part.probabilities.tolist() == found.probabilities[mask].tolist()
    positions: npt.NDArray[Any] = np.array([3, 1])
    assert found.select(positions).losses.tolist() == found.losses[[3, 1]].tolist()
    assert SIX.select(positions).probabilities is None
    assert len(found) == 20, "what is selected from stays as it is"


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("num_classes", [2, 3, 7])
def test_the_area_under_the_curve_is_scikit_learns(seed: int, num_classes: int) -> None:
    found = _random(seed, 60, num_classes)
    assert found.probabilities is not None
    coarse = np.round(found.probabilities, 1)  # ties
    coarse[:, -1] = 1 - coarse[:, :-1].sum(1)
    for odds in (found.probabilities, coarse):
        told = Predictions(found.targets, found.labels, found.losses, odds)
        if num_classes == 2:
            expected = roc_auc_score(found.targets, odds[:, 1])
        else:
            each = [roc_auc_score(found.targets == k, odds[:, k]) for k in np.unique(found.targets)]
            expected = np.mean(each)
        assert _of("auroc", told) == pytest.approx(expected)
    if num_classes == 3:
        whole = roc_auc_score(found.targets, found.probabilities, multi_class="ovr")
        assert _of("auroc", found) == pytest.approx(whole)


def test_of_labels_that_do_not_occur_there_is_no_area() -> None:
    odds = [[0.5, 0.3, 0.2], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1]]
    assert _of("auroc", _sure([0, 1, 0], odds)) == 1.0
    assert _of("auroc", _sure([1, 1, 1], odds)) == 0.5


@pytest.mark.parametrize("shape", [(40,), (40, 3)])
def test_what_a_regression_is_judged_by_is_scikit_learns(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    targets = rng.standard_normal(shape).astype(np.float32)
    guesses = targets + 0.3 * rng.standard_normal(shape)
    found = Predictions(targets, guesses, np.zeros(40))
    flat = targets.ravel(), guesses.ravel()
    assert _of("mae", found) == pytest.approx(mean_absolute_error(*flat))
    assert _of("rmse", found) == pytest.approx(root_mean_squared_error(*flat))
    assert _of("r2", found) == pytest.approx(r2_score(targets, guesses))
    perfect = Predictions(targets, targets.astype(np.float64), np.zeros(40))
    assert [_of(name, perfect) for name in ("mae", "rmse", "r2")] == [0.0, 0.0, 1.0]


def test_equal_targets_leave_no_variance_to_explain() -> None:
    ones = np.ones(3, np.float32)
    assert _of("r2", Predictions(ones, np.ones(3), np.zeros(3))) == 1.0
    assert _of("r2", Predictions(ones, np.array([1.0, 1.0, 1.5]), np.zeros(3))) == 0.0


def test_perplexity_is_the_number_of_equal_choices() -> None:
    found = Predictions(np.zeros(4, int), np.zeros(4, int), np.full(4, math.log(8)))
    assert _of("perplexity", found) == pytest.approx(8)
    zero = np.zeros(1, int)
    assert math.isfinite(_of("perplexity", Predictions(zero, zero, np.array([1e9]))))


def test_a_text_is_selected_with_all_its_tokens() -> None:
    found = Predictions(np.arange(6), np.arange(6), np.arange(6.0), offsets=np.array([0, 1, 4, 6]))
    part = found.select(np.array([2, 0]))
    assert part.targets.tolist() == [4, 5, 0]
    assert part.offsets is not None
    assert part.offsets.tolist() == [0, 2, 3]
    assert found.select(np.array([False, True, False])).losses.tolist() == [1.0, 2.0, 3.0]
    assert len(part) == 3
