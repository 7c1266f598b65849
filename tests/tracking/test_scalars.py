from __future__ import annotations

import pytest

from fedexp.federation.events import Failure, Measurement, RoundReport
from fedexp.tracking.scalars import Scalars


def _row(server_round: int, what: str, value: float, client: int | None = None) -> Measurement:
    """``what`` is model/split/subset/metric."""
    model, split, subset, metric = what.split("/")
    return Measurement(server_round, model, split, subset, client, metric, value)


def test_a_federated_round() -> None:
    rows = [
        _row(1, "local/train/all/loss", 0.7),
        _row(1, "global/client_test/all/accuracy", 0.2, client=0),
        _row(1, "global/client_test/all/accuracy", 0.6, client=1),
        _row(1, "global/client_test/all/loss", 1.5, client=0),
        _row(1, "global/client_test/all/accuracy", 0.5),  # weighted by examples: the CSV's alone
        _row(1, "global/test/all/accuracy", 0.9),
        _row(1, "global/test/1-3-7/loss", 0.3),
        _row(1, "global/train/all/bytes_down", 800),
    ]
    failures = [Failure(1, "train", client, "why") for client in (2, 3)]
    assert Scalars().of(RoundReport(1, rows, {"train": 0.25}, failures)) == {
        "time/train": 0.25,
        "clients/failures": 2,
        "clients/train_loss": 0.7,
        "clients/accuracy/mean": pytest.approx(0.4),
        "clients/accuracy/std": pytest.approx(0.2),
        "clients/accuracy/min": 0.2,
        "clients/accuracy/worst10": 0.2,
        "global/accuracy": 0.9,
        "global/loss/1-3-7": 0.3,
        "clients/bytes_down": 800,
    }


def test_metrics_of_ones_own_have_scalars_of_their_own() -> None:
    rows = [
        _row(1, "global/test/all/macro_f1", 0.9),
        _row(1, "global/test/1-3-7/macro_f1", 0.5),
        _row(1, "global/client_test/all/macro_f1", 0.25, client=0),
        _row(1, "global/client_test/all/macro_f1", 0.75, client=1),
        _row(1, "global/client_test/all/macro_f1", 0.125),  # weighted by examples
        _row(1, "global/client_test/all/loss", 2.0, client=1),
    ]
    assert Scalars().of(RoundReport(1, rows)) == {
        "clients/failures": 0,
        "global/macro_f1": 0.9,
        "global/macro_f1/1-3-7": 0.5,
        "clients/macro_f1/mean": 0.5,
    }


def test_faulty_clients_are_no_failures_of_the_round_before_the_first() -> None:
    faulty = [Failure(0, "byzantine", 1, "sign_flip")]
    assert Scalars().of(RoundReport(0, failures=faulty)) == {}


def test_local_models_that_did_not_train_still_count() -> None:
    scalars = Scalars()
    first = [_row(0, "local/test/all/accuracy", 0.1, client=k) for k in range(4)]
    assert scalars.of(RoundReport(0, first)) == {"local/accuracy": pytest.approx(0.1)}
    second = [_row(1, "local/test/all/accuracy", 0.9, client=2)]
    found = scalars.of(RoundReport(1, second))
    # (3 * 0.1 + 0.9) / 4
    assert found == {"clients/failures": 0, "local/accuracy": pytest.approx(0.3)}


def test_clients_that_did_not_evaluate_have_no_scalars() -> None:
    assert Scalars().of_clients([_row(1, "global/test/all/accuracy", 0.5)]) == {}
    assert (
        Scalars().of_clients([_row(1, "global/client_test/all/accuracy", 0.5)]) == {}
    )  # their mean alone
