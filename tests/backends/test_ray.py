"""Clients on Ray tasks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from flwr.app import Message, RecordDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.helpers import (
    TWO_WORKERS,
    Clients,
    arrays,
    config,
    initial_weights,
    instruction,
    same_weights,
    tiny_data,
    with_fault,
)

from fedexp.backends import ray as backend
from fedexp.backends.ray import LONG_ROUND, RayGrid
from fedexp.config.clients import ClientsConfig
from fedexp.core.roles import Order
from fedexp.core.weights import Weights
from fedexp.flower.grid import CohortGrid
from fedexp.flower.messages import pack_order, weights_in


def _content() -> RecordDict:
    return pack_order(Order(initial_weights(config())), 1)


def _train_all(grid: CohortGrid) -> list[Message]:
    content = _content()
    messages = [Message(content, dst_node_id=k, message_type="train") for k in (2, 1, 0)]
    return list(grid.send_and_receive(messages))


def _weights(replies: list[Message]) -> list[Weights]:
    assert not any(reply.has_error() for reply in replies), [r.error for r in replies]
    return [weights_in(reply.content, "arrays") for reply in replies]


def _inline_weights() -> list[Weights]:
    return _weights(_train_all(Clients(config(), tiny_data()).grid))


@pytest.mark.slow
@pytest.mark.usefixtures("two_workers")
def test_ray_clients_send_what_inline_clients_send() -> None:
    grid, told = RayGrid(TWO_WORKERS, tiny_data()), list[int]()
    grid.on_reply = told.append
    replies = _train_all(grid)
    assert [reply.metadata.src_node_id for reply in replies] == [0, 1, 2]
    assert told == [1, 2, 3]  # three clients are three tasks
    for mine, theirs in zip(_weights(replies), _inline_weights(), strict=True):
        assert same_weights(mine, theirs)


@pytest.mark.slow  # a session of its own: 10 s
@pytest.mark.usefixtures("two_workers")
def test_a_ray_client_that_raises_is_answered_for() -> None:
    replies = _train_all(RayGrid(TWO_WORKERS, with_fault(tiny_data(), bad_client=1)))
    assert [reply.has_error() for reply in replies] == [False, True, False]
    assert replies[1].error.reason == "ValueError: disk of client 1 is gone"


@pytest.mark.slow
@pytest.mark.usefixtures("two_workers")
def test_a_ray_worker_killed_in_mid_task_is_replaced(tmp_path: Path) -> None:
    marker = tmp_path / "killed"
    data = with_fault(tiny_data(), bad_client=1, marker=str(marker))
    replies = _train_all(RayGrid(TWO_WORKERS, data))
    assert marker.exists()
    for mine, theirs in zip(_weights(replies), _inline_weights(), strict=True):
        assert same_weights(mine, theirs)


@pytest.mark.slow
@pytest.mark.usefixtures("two_workers")
def test_a_task_that_fails_outside_its_clients_answers_for_each_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: Any) -> None:
        raise MemoryError("no room for the data")

    monkeypatch.setattr(backend, "_run_clients", broken)
    replies = _train_all(RayGrid(TWO_WORKERS, tiny_data()))
    assert [reply.metadata.src_node_id for reply in replies] == [0, 1, 2]
    assert all("MemoryError: no room for the data" in str(reply.error.reason) for reply in replies)


@pytest.mark.slow
@pytest.mark.usefixtures("two_workers")
def test_every_content_is_stored_once_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    stored: list[Any] = []
    put = ray.put

    def counting_put(value: Any) -> Any:
        stored.append(value)
        return put(value)

    grid = RayGrid(TWO_WORKERS, tiny_data())
    monkeypatch.setattr(ray, "put", counting_put)
    shared, other = _content(), _content()
    for contents in ([shared, shared, shared], [shared, other, shared]):
        stored.clear()
        messages = [Message(c, dst_node_id=k, message_type="train") for k, c in enumerate(contents)]
        _weights(list(grid.send_and_receive(messages)))
        assert len(stored) == len({id(content) for content in contents})


@pytest.mark.slow
@pytest.mark.usefixtures("two_workers")
def test_what_clients_send_can_be_used_without_being_copied() -> None:
    for weights in _weights(_train_all(RayGrid(TWO_WORKERS, tiny_data()))):
        assert all(isinstance(array, np.ndarray) for array in weights.values())
        assert not any(array.flags.writeable for array in weights.values())


@pytest.fixture
def idle_ray_grid(monkeypatch: pytest.MonkeyPatch) -> RayGrid:
    """A grid for two workers, of one task each, without Ray."""
    monkeypatch.setattr(ray, "put", lambda value: value)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    grid = RayGrid(TWO_WORKERS, tiny_data(sizes=(8, 7, 6, 5, 4), test_sizes=(1,) * 5))
    grid._seconds = 0.1  # of the round before: a short one
    return grid


@pytest.mark.slow
@pytest.mark.usefixtures("two_workers")
def test_large_replies_are_taken_in_bit_by_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "IN_FLIGHT", 1)
    most, ask = [0], ray.wait

    def counting(tasks: list[Any], **options: Any) -> Any:
        most[0] = max(most[0], len(tasks))
        return ask(tasks, **options)

    monkeypatch.setattr(ray, "wait", counting)
    data = tiny_data(sizes=(4, 8, 6, 5, 3, 7, 2, 9), test_sizes=(1,) * 8)
    content = _content()
    messages = [Message(content, dst_node_id=k, message_type="train") for k in range(8)]
    grid = RayGrid(TWO_WORKERS, data)
    replies = list(grid.send_and_receive(messages))
    assert most == [4]  # two a worker
    inline = Clients(config(clients=ClientsConfig(num=8)), data).grid
    for mine, theirs in zip(
        _weights(replies), _weights(list(inline.send_and_receive(messages))), strict=True
    ):
        assert same_weights(mine, theirs)


def test_how_many_clients_are_on_their_way(
    idle_ray_grid: RayGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = [instruction(k, 1, arrays(0.0, 0.0)) for k in range(5)]  # 8 bytes each
    assert idle_ray_grid._bounds(messages) == (math.inf, 5)
    monkeypatch.setattr(backend, "IN_FLIGHT", 39)
    assert idle_ray_grid._bounds(messages) == (1, 4)  # four tasks of one: 32 bytes
    assert _clients(idle_ray_grid._chunks(messages, 1)) == [[0], [1], [2], [3], [4]]
    assert _clients(idle_ray_grid._chunks(messages, 2)) == [[0, 1], [2, 3], [4]]
    tests = [Message(m.content, dst_node_id=0, message_type="evaluate") for m in messages]
    assert idle_ray_grid._bounds(tests) == (math.inf, 5)  # they answer with numbers alone
    assert idle_ray_grid._bounds([]) == (math.inf, 0)


def _clients(chunks: list[list[Message]]) -> list[list[int]]:
    return [[message.metadata.dst_node_id for message in chunk] for chunk in chunks]


def test_work_is_dealt_largest_first(idle_ray_grid: RayGrid) -> None:
    messages = [instruction(k, 1, arrays(0.0)) for k in range(5)]
    # 8 | 7, then 6 joins 7, 5 joins 8, and of two tasks of 13 the first takes 4: 17 and 13.
    assert _clients(idle_ray_grid._chunks(messages)) == [[0, 3, 4], [1, 2]]


def test_workers_get_a_second_task_after_a_long_round(idle_ray_grid: RayGrid) -> None:
    messages = [instruction(k, 1, arrays(0.0)) for k in range(5)]
    idle_ray_grid._seconds = LONG_ROUND
    assert _clients(idle_ray_grid._chunks(messages)) == [[3, 4], [0], [1], [2]]


def test_fewer_clients_than_workers_get_a_task_each(idle_ray_grid: RayGrid) -> None:
    assert _clients(idle_ray_grid._chunks([instruction(3, 1, arrays(0.0))])) == [[3]]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(0, 50), min_size=1, max_size=40), workers=st.integers(1, 6))
def test_chunks_hold_each_client_once_and_are_balanced(
    idle_ray_grid: RayGrid, sizes: list[int], workers: int
) -> None:
    idle_ray_grid._size, idle_ray_grid._workers = sizes.__getitem__, workers  # type: ignore[assignment]
    messages = [instruction(k, 1, arrays(0.0)) for k in range(len(sizes))]
    chunks = _clients(idle_ray_grid._chunks(messages))
    assert sorted(client for chunk in chunks for client in chunk) == list(range(len(sizes)))
    assert len(chunks) == min(len(sizes), workers)
    loads = [sum(sizes[client] for client in chunk) for chunk in chunks]
    assert loads == sorted(loads, reverse=True)
    # A task was the lightest of all when it got the last, its smallest, client.
    for chunk, load in zip(chunks, loads, strict=True):
        assert load - min((sizes[client] for client in chunk), default=0) <= min(loads)
