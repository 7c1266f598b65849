"""Runs whose strategy needs more memory than there is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.helpers import config, setup

from fedexp import experiment as runner
from fedexp.config.clients import ClientsConfig
from fedexp.core.options import FedexpError
from fedexp.federation import room
from fedexp.federation.events import Listener
from fedexp.strategies.base import REGISTRY

MODEL = {"w": np.zeros((100, 10), np.float32), "b": np.zeros(10, np.float32)}


@pytest.mark.parametrize(
    ("name", "each"),
    [
        ("fedavg", 0),
        ("fedmedian", 0),
        ("fedtrimmedavg", 0),
        ("fedadam", 0),
        ("qfedavg", 0),
        ("krum", 12_000),  # the larger array in float32 and float64
        ("multikrum", 12_000),
        ("bulyan", 16_040),  # and a copy of the model
    ],
)
def test_what_strategies_hold(name: str, each: int) -> None:
    server = REGISTRY.get(name)().server(setup())
    assert server.memory(1, MODEL) == each
    assert server.memory(2000, MODEL) == 2000 * each


def test_too_little_memory_is_told_before_clients_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "usable_memory", lambda: 10**6)

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("clients were started")

    monkeypatch.setattr("fedexp.backends.inline.run", never)
    krum = config(strategy=REGISTRY.get("krum")(), clients=ClientsConfig(num=50))
    with pytest.raises(FedexpError, match=r"^strategy=krum needs 0\.00\d+ GB .*50 clients") as told:
        runner.Attempt(krum, Listener()).complete()
    assert "clients.fraction_train" in str(told.value)


def test_where_nobody_knows_of_memory_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "usable_memory", lambda: None)
    krum = config(strategy=REGISTRY.get("krum")())
    room.ensure_room(krum, krum.strategy.server(setup()), MODEL)
