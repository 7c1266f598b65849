"""Flower's own Simulation Runtime behind the grid."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import ray
from flwr.app import Message
from support.helpers import (
    ONE_WORKER,
    Clients,
    config,
    initial_weights,
    run_server,
    same_weights,
    tiny_data,
    with_fault,
)

from fedexp.backends import flower, ray_session
from fedexp.backends.flower import FlowerGrid
from fedexp.config.backend import FlowerBackend
from fedexp.core.options import FedexpError
from fedexp.core.roles import Order
from fedexp.flower.grid import CohortGrid
from fedexp.flower.messages import pack_order, weights_in

FLOWER = config(backend=FlowerBackend(workers=1))


@pytest.fixture
def one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start Ray, or keep it, and let Flower's runtime, which would end the session, not do so."""
    ray_session.start_ray(ONE_WORKER)
    monkeypatch.setattr(ray, "shutdown", lambda: None)


@pytest.mark.slow  # a whole Flower simulation: 5 s
def test_a_client_that_raises_on_flower_is_answered_for(
    one_worker: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = with_fault(tiny_data(), bad_client=1)
    monkeypatch.setattr(flower, "_federate_once", lambda _: data)
    content = pack_order(Order(initial_weights(config())), 1)
    found: list[tuple[int, Any]] = []

    def server(grid: CohortGrid) -> None:
        messages = [Message(content, dst_node_id=k, message_type="train") for k in range(3)]
        for reply in grid.send_and_receive(messages):
            failed = reply.has_error()
            answer: Any = reply.error.reason if failed else weights_in(reply.content, "arrays")
            found.append((reply.metadata.src_node_id, answer))

    run_server(FLOWER, data, server)
    assert [client for client, _ in found] == [0, 1, 2]
    assert found[1][1] == "ValueError: disk of client 1 is gone"  # as on the other backends
    assert not same_weights(found[0][1], found[2][1])


@pytest.mark.slow  # a whole Flower simulation: 5 s
def test_a_server_that_flower_lets_end_quietly_is_no_success(one_worker: None) -> None:
    def server(_: CohortGrid) -> None:
        raise SystemExit(1)

    with pytest.raises(SystemExit):
        run_server(FLOWER, tiny_data(), server)


class Runtime:
    """Stands in for Flower's grid: three nodes, whose replies can be pulled at the second attempt."""

    def __init__(self) -> None:
        self.nodes = [0, 1, 2]
        self.clients = Clients(config(), tiny_data()).grid
        self._replies: dict[str, Message] = {}
        self._attempts = 0

    def get_node_ids(self) -> list[int]:
        return self.nodes

    def push_messages(self, messages: list[Message]) -> list[str]:
        for number, message in enumerate(messages):
            key = f"message {number}"
            message.metadata.__dict__["_message_id"] = key
            (self._replies[key],) = self.clients.send_and_receive([message])
        self._attempts = 0
        return list(self._replies)

    def pull_messages(self, keys: set[str]) -> list[Message]:
        self._attempts += 1
        return [self._replies.pop(key) for key in sorted(keys)] if self._attempts > 1 else []


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Runtime:
    monkeypatch.setattr(flower, "PULL_INTERVAL", 0.01)
    return Runtime()


def _grid(runtime: Runtime, stop: threading.Event | None = None) -> FlowerGrid:
    return FlowerGrid(runtime, stop or threading.Event())  # type: ignore[arg-type]


def test_waiting_for_flower_ends_when_its_runtime_is_gone(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "pull_messages", lambda _: [])  # nobody answers any more
    stop = threading.Event()
    grid = _grid(runtime, stop)
    threading.Timer(0.3, stop.set).start()
    with pytest.raises(SystemExit):
        grid.discover(3)
    runtime.nodes = []
    with pytest.raises(SystemExit):
        grid.discover(3)


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (
            "ray::ClientAppActor.run() (pid=1, ip=127.0.0.1)\n  File x.py\n"
            "fedexp.federation.faults.DroppedOutError: clients.dropout=0.1\n\n"
            "The above exception was the direct cause of the following exception:\n\nmore",
            "DroppedOutError: clients.dropout=0.1",
        ),
        (
            "ValueError: two\nlines\n\nThe above exception was the direct cause",
            "ValueError: two lines",
        ),
        ("the node\n  is gone", "the node is gone"),
        ("", ""),
    ],
)
def test_a_reason_is_one_line_without_processes(told: str, reason: str) -> None:
    assert flower._raised(told) == reason


def test_a_node_that_cannot_say_what_it_holds_ends_the_run(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise ValueError("no node")

    monkeypatch.setattr(runtime.clients, "_app", broken)
    with pytest.raises(FedexpError, match=r"^backend=flower: ValueError: no node$"):
        _grid(runtime).discover(3)


def test_partitions_are_reached_under_the_ids_of_their_nodes(runtime: Runtime) -> None:
    grid, told = _grid(runtime), list[int]()
    grid.on_reply = told.append
    grid.discover(3)
    assert grid._node_of == {0: 0, 1: 1, 2: 2}
    grid._node_of = {0: 2, 1: 0, 2: 1}  # partition -> node; each node has the examples of its id
    content = pack_order(Order(initial_weights(config())), 1)
    messages = [Message(content, dst_node_id=k, message_type="train") for k in (0, 1, 2)]
    replies = list(grid.send_and_receive(messages))
    assert [reply.metadata.src_node_id for reply in replies] == [0, 1, 2]
    counts = [reply.content.metric_records["metrics"]["num-examples"] for reply in replies]
    assert counts == [6, 4, 8]  # of the nodes 2, 0 and 1
    assert told == [3]


def test_an_error_of_a_client_is_told_under_its_partition(runtime: Runtime) -> None:
    runtime.clients = Clients(config(), with_fault(tiny_data(), bad_client=2)).grid
    grid = _grid(runtime)
    grid._node_of = {0: 2, 1: 0, 2: 1}
    content = pack_order(Order(initial_weights(config())), 1)
    messages = [Message(content, dst_node_id=k, message_type="train") for k in (0, 1)]
    failed, fine = grid.send_and_receive(messages)
    assert failed.metadata.src_node_id == 0
    assert failed.error.reason == "ValueError: disk of client 2 is gone"
    assert not fine.has_error()


def test_a_client_that_misses_what_it_is_to_keep_ends_the_run(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = _grid(runtime)
    grid.discover(3)
    grid._trained, grid._answered = {0, 1}, {0, 1}

    def broken(*_: Any) -> Any:
        raise ValueError("no node")

    monkeypatch.setattr(runtime.clients, "_app", broken)
    for ask in (
        grid.client_states,
        lambda: grid.restore_states({1: {"calls": 2}}),
        lambda: grid.take_back([1]),
    ):
        with pytest.raises(FedexpError, match=r"^backend=flower: ValueError: no node$"):
            ask()
