"""Rounds whose updates wait in a file give the bits of rounds that are held in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.helpers import config, run_server, setup, tiny_data, with_fault

from fedexp.backends.inline import InlineGrid
from fedexp.config.clients import ByzantineConfig, ClientsConfig
from fedexp.config.schema import Config
from fedexp.core import shelf, updates
from fedexp.core.roles import Server
from fedexp.core.shelf import ShelvedUpdate
from fedexp.core.updates import Updates
from fedexp.core.weights import hash_weights, named
from fedexp.federation import gathering
from fedexp.federation.evaluation import ServerEvaluation
from fedexp.federation.events import Listener, RoundReport
from fedexp.federation.guards import Holdings
from fedexp.federation.rounds import RoundLoop
from fedexp.federation.servers import build_server
from fedexp.flower import strategies as adapter
from fedexp.flower.grid import CohortGrid
from fedexp.models.mlp import Mlp
from fedexp.strategies.base import FEDERATED, REGISTRY

SIZES = (4, 8, 6, 5, 7, 3, 9)
NAMES = sorted(n for n in REGISTRY.choices() if REGISTRY.get(n).kind == FEDERATED)
FAST = ("fedavg", "fedmedian", "fedtrimmedavg", "fedadam", "krum", "scaffold")
EVERYBODY = set(range(len(SIZES)))


def _is_mean(name: str) -> bool:
    kind = type(REGISTRY.get(name)().server(setup(len(SIZES))))
    return kind.combine is Server.combine and kind.loss is Server.loss


MEANS = {name for name in NAMES if _is_mean(name)}


class _Told(Listener):
    def __init__(self) -> None:
        self.reports: list[RoundReport] = []

    def round(self, report: RoundReport) -> None:
        self.reports.append(report)


def _end(experiment: Config, data: Any, holdings: Holdings | None = None) -> tuple[Any, ...]:
    """Return what two rounds come to: hashes, measurements, failures."""
    evaluation, told = ServerEvaluation(experiment, data), _Told()
    holdings = holdings or Holdings(data.partition.size, data.client_test.size)
    server = build_server(experiment, evaluation)
    loop = RoundLoop(experiment, server, evaluation, told, holdings)

    def body(grid: CohortGrid) -> None:
        loop.run(grid)

    run_server(experiment, data, body)
    weights = named(loop.outcome.models, evaluation.initial)
    measurements = [row for report in told.reports for row in report.measurements]
    failures = [row for report in told.reports for row in report.failures]
    return hash_weights(weights), measurements, failures


def _experiment(name: str, **clients: Any) -> Config:
    held = ClientsConfig(num=len(SIZES), **clients)
    return config(strategy=REGISTRY.get(name)(), clients=held, model=Mlp(hidden=[5]), rounds=2)


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Shelve every update, and aggregate few coordinates at a time; count updates that are shelved."""
    shelved: list[int] = []
    real = shelf.ShelvedUpdate

    class Counted(real):  # type: ignore[misc,valid-type]
        def __init__(self, client: int, *rest: Any, **named: Any) -> None:
            shelved.append(client)
            super().__init__(client, *rest, **named)

    for module in (shelf, gathering):
        monkeypatch.setattr(module, "HELD", 0)
    monkeypatch.setattr(shelf, "ShelvedUpdate", Counted)
    for module in (updates, adapter):
        monkeypatch.setattr(module, "BLOCK", 4 * len(SIZES) * 500)
    return shelved


@pytest.mark.parametrize(
    "name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in NAMES]
)
def test_the_same_bits_from_a_file(name: str, request: pytest.FixtureRequest) -> None:
    data = tiny_data(SIZES, (2,) * len(SIZES))
    experiment = _experiment(name)
    in_memory = _end(experiment, data)
    shelved = request.getfixturevalue("large")
    assert _end(experiment, data) == in_memory
    assert set(shelved) == (set() if name in MEANS else EVERYBODY)


def test_which_strategies_take_the_mean_and_nothing_else() -> None:
    assert {"fedavg", "fedprox", "fedper"} <= MEANS
    assert not MEANS & {"scaffold", "feddyn", "fednova", "fedadam", "fedmedian", "krum"}


@pytest.mark.parametrize(
    "name",
    [
        "fedavg",
        "fedper",
        *(pytest.param(n, marks=pytest.mark.slow) for n in sorted(MEANS - {"fedavg", "fedper"})),
    ],
)
def test_who_does_not_reply_has_everybody_asked_again(
    name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = with_fault(tiny_data(SIZES, (2,) * len(SIZES)), bad_client=2)
    experiment = _experiment(name)
    in_memory = _end(experiment, data)
    shelved, asked, real = request.getfixturevalue("large"), list[int](), InlineGrid.exchange

    def counted(grid: InlineGrid, messages: list[Any]) -> Any:
        if messages[0].metadata.message_type == "train":
            asked.append(len(messages))
        return real(grid, messages)

    monkeypatch.setattr(InlineGrid, "exchange", counted)
    assert _end(experiment, data) == in_memory
    assert asked == [len(SIZES)] * 3  # twice in round 1, and then everybody knows
    assert set(shelved) == EVERYBODY - {2}


def test_examples_that_nobody_expected_have_everybody_asked_again(large: list[int]) -> None:
    data, experiment = tiny_data(SIZES, (2,) * len(SIZES)), _experiment("fedavg")
    added = _end(experiment, data)
    assert large == []
    many = Holdings(lambda client: 100, data.client_test.size)
    assert _end(experiment, data, many) == added
    assert set(large) == EVERYBODY


def test_who_holds_nothing_is_known_to_send_nothing(
    large: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, asked, real = (4, 0, 6, *SIZES[3:]), list[int](), InlineGrid.exchange

    def counted(grid: InlineGrid, messages: list[Any]) -> Any:
        asked.append(len(messages))
        return real(grid, messages)

    monkeypatch.setattr(InlineGrid, "exchange", counted)
    _, _, failures = _end(_experiment("fedavg"), tiny_data(sizes, (2,) * len(SIZES)))
    assert {failure.client for failure in failures} == {1}
    assert asked == [len(SIZES)] * 2
    assert set(large) == EVERYBODY - {1}


def test_replies_that_are_early_wait(large: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    data, experiment = tiny_data(SIZES, (2,) * len(SIZES)), _experiment("fedavg")
    in_order, real = _end(experiment, data), InlineGrid.exchange
    monkeypatch.setattr(
        InlineGrid, "exchange", lambda grid, messages: [*real(grid, messages)][::-1]
    )
    assert _end(experiment, data) == in_order
    assert set(large) == EVERYBODY - {0}


@pytest.mark.parametrize("name", ["fedavg", "fedmedian"])
def test_faults_cost_the_same_clients_the_round(name: str, request: pytest.FixtureRequest) -> None:
    data = with_fault(tiny_data(SIZES, (2,) * len(SIZES)), bad_client=2)
    byzantine = ByzantineConfig(fraction=0.3, kind="little_is_enough", scale=2.0)
    experiment = _experiment(name, byzantine=byzantine)
    in_memory = _end(experiment, data)
    assert 2 in {failure.client for failure in in_memory[2] if failure.phase == "train"}
    request.getfixturevalue("large")
    assert _end(experiment, data) == in_memory


def test_a_median_by_blocks_is_the_median() -> None:
    rng = np.random.default_rng(0)
    sent = [{"w": rng.normal(size=(40, 25)).astype(np.float32)} for _ in range(6)]
    found = Updates([updates.Update(k, 1, w, 1) for k, w in enumerate(sent)])
    asked = []

    def median(some: Updates) -> Any:
        asked.append(some[0].weights["w"].size)
        return {"w": np.median(some.stacked("w"), axis=0)}

    with pytest.MonkeyPatch.context() as patch:
        for module in (updates, adapter):
            patch.setattr(module, "BLOCK", 4 * 6 * 100)
        by_blocks = adapter.by_blocks(found, median)
    assert asked == [100] * 10
    assert by_blocks["w"].tobytes() == median(found)["w"].tobytes()
    assert not any(isinstance(update, ShelvedUpdate) for update in found)
