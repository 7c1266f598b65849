from __future__ import annotations

import pytest

from fedexp.federation.events import RoundReport
from fedexp.tracking.run_folder import Metric
from fedexp.tracking.scalars import Curves


def _row(server_round: int, what: str, value: float, client: int | None = None) -> Metric:
    """``what`` is model/split/subset/metric."""
    model, split, subset, metric = what.split("/")
    return Metric(server_round, model, split, subset, client, metric, value)


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
    curves = Curves()
    assert curves.of(RoundReport(1, rows, {"train": 0.25}, failures=2)) == {
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
    assert curves.clients == {0: {"accuracy": 0.2, "loss": 1.5}, 1: {"accuracy": 0.6}}


def test_local_models_that_did_not_train_still_count() -> None:
    curves = Curves()
    first = [_row(0, "local/test/all/accuracy", 0.1, client=k) for k in range(4)]
    assert curves.of(RoundReport(0, first)) == {"local/accuracy": pytest.approx(0.1)}
    second = [_row(1, "local/test/all/accuracy", 0.9, client=2)]
    found = curves.of(RoundReport(1, second))
    assert found == {"clients/failures": 0, "local/accuracy": pytest.approx(0.3)}  # (3*0.1 + 0.9)/4


def test_a_figure_is_given_once_a_round() -> None:
    curves = Curves()
    some = [_row(3, "global/client_test/all/accuracy", 0.5, client=0)]
    everyone = [*some, _row(3, "global/client_test/all/accuracy", 0.1, client=1)]
    assert curves.of(RoundReport(3, some))["clients/accuracy/mean"] == 0.5
    assert curves.of(RoundReport(3, everyone)) == {}
    assert curves.clients[1] == {"accuracy": 0.1}
    assert curves.of(RoundReport(4, everyone))["clients/accuracy/mean"] == pytest.approx(0.3)
