from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ray
from fedexp.backends.grid import LONG_ROUND
from fedexp.models.networks import initial_weights
from flwr.app import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.helpers import (
    TWO_WORKERS,
    arrays,
    config,
    instruction,
    same_weights,
    scripted_app,
    tiny_data,
    trained,
    with_fault,
)

from fedexp.backends import grid as grid_module
from fedexp.backends.inline import InlineGrid
from fedexp.backends.ray import RayGrid
from fedexp.core.weights import Weights
from fedexp.federation.client import build_client_app
from fedexp.flower.grid import CohortGrid
from fedexp.flower.messages import to_record, to_weights


def _echo() -> InlineGrid:
    """Return three clients that send back what they get, with their own number as the loss."""
    return InlineGrid(scripted_app(lambda k, w: trained(*w, num_examples=1, loss=float(k))), 3)


def _losses(replies: Any) -> list[tuple[int, float]]:
    return [(r.metadata.src_node_id, r.content["metrics"]["train_loss"]) for r in replies]


def test_replies_come_in_the_order_of_partitions() -> None:
    grid = _echo()
    messages = [instruction(client, 1, arrays(1.0)) for client in (2, 0, 1)]
    assert _losses(grid.send_and_receive(messages)) == [(0, 0.0), (1, 1.0), (2, 2.0)]


def test_a_grid_shows_the_cohort_only() -> None:
    grid = _echo()
    assert list(grid.get_node_ids()) == []
    grid.cohort = [0, 2]
    assert list(grid.get_node_ids()) == [0, 2]


def test_pushed_messages_are_pulled_once() -> None:
    grid = _echo()
    ids = list(grid.push_messages([instruction(k, 1, arrays(1.0)) for k in (1, 0)]))
    assert len(set(ids)) == 2
    assert _losses(grid.pull_messages(ids[:1])) == [(0, 0.0)]
    assert _losses(grid.pull_messages(ids)) == [(1, 1.0)]
    assert list(grid.pull_messages(ids)) == []


def test_a_client_that_raises_is_answered_for() -> None:
    data = with_fault(tiny_data(), bad_client=1)
    grid = InlineGrid(build_client_app(config(), lambda: data), 3)
    record = to_record(_initial())
    replies = list(grid.send_and_receive([instruction(k, 1, record) for k in range(3)]))
    assert [reply.has_error() for reply in replies] == [False, True, False]
    assert replies[1].error.reason == "ValueError: disk of client 1 is gone"
    assert replies[1].metadata.src_node_id == 1


def test_progress_is_told_after_every_inline_client() -> None:
    grid, told = _echo(), list[int]()
    grid.on_reply = told.append
    list(grid.send_and_receive([instruction(k, 1, arrays(1.0)) for k in range(3)]))
    assert told == [1, 2, 3]


def _initial() -> Weights:
    return initial_weights(config().model, config().dataset.spec, 0)


def _train_all(grid: CohortGrid) -> list[Message]:
    record = to_record(_initial())
    return list(grid.send_and_receive([instruction(k, 1, record) for k in (2, 1, 0)]))


def _weights(replies: list[Message]) -> list[Weights]:
    assert not any(reply.has_error() for reply in replies), [r.error for r in replies]
    return [to_weights(reply.content.array_records["arrays"]) for reply in replies]


def _inline_weights() -> list[Weights]:
    data = tiny_data()
    return _weights(_train_all(InlineGrid(build_client_app(config(), lambda: data), 3)))


@pytest.mark.usefixtures("two_workers")
def test_ray_clients_send_what_inline_clients_send() -> None:
    grid, told = RayGrid(TWO_WORKERS, tiny_data()), list[int]()
    grid.on_reply = told.append
    replies = _train_all(grid)
    assert [reply.metadata.src_node_id for reply in replies] == [0, 1, 2]
    assert told == [1, 2, 3]  # three clients are three tasks
    for mine, theirs in zip(_weights(replies), _inline_weights(), strict=True):
        assert same_weights(mine, theirs)


@pytest.mark.usefixtures("two_workers")
def test_a_ray_client_that_raises_is_answered_for() -> None:
    replies = _train_all(RayGrid(TWO_WORKERS, with_fault(tiny_data(), bad_client=1)))
    assert [reply.has_error() for reply in replies] == [False, True, False]
    assert replies[1].error.reason == "ValueError: disk of client 1 is gone"


@pytest.mark.usefixtures("two_workers")
def test_a_ray_worker_killed_in_mid_task_is_replaced(tmp_path: Path) -> None:
    marker = tmp_path / "killed"
    data = with_fault(tiny_data(), bad_client=1, marker=str(marker))
    replies = _train_all(RayGrid(TWO_WORKERS, data))
    assert marker.exists()
    for mine, theirs in zip(_weights(replies), _inline_weights(), strict=True):
        assert same_weights(mine, theirs)


@pytest.mark.usefixtures("two_workers")
def test_a_task_that_fails_outside_its_clients_answers_for_each_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: Any) -> None:
        raise MemoryError("no room for the data")

    monkeypatch.setattr(grid_module, "_run_clients", broken)
    replies = _train_all(RayGrid(TWO_WORKERS, tiny_data()))
    assert [reply.metadata.src_node_id for reply in replies] == [0, 1, 2]
    assert all("MemoryError: no room for the data" in str(reply.error.reason) for reply in replies)


@pytest.mark.usefixtures("two_workers")
def test_every_content_is_stored_once_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    stored: list[Any] = []
    put = ray.put

    def counting_put(value: Any) -> Any:
        stored.append(value)
        return put(value)

    grid = RayGrid(TWO_WORKERS, tiny_data())
    monkeypatch.setattr(ray, "put", counting_put)
    shared, other = (instruction(0, 1, to_record(_initial())).content for _ in range(2))
    for contents in ([shared, shared, shared], [shared, other, shared]):
        stored.clear()
        messages = [Message(c, dst_node_id=k, message_type="train") for k, c in enumerate(contents)]
        _weights(list(grid.send_and_receive(messages)))
        assert len(stored) == len({id(content) for content in contents})


@pytest.fixture
def idle_ray_grid(monkeypatch: pytest.MonkeyPatch) -> RayGrid:
    """A grid for two workers, of one task each, without Ray."""
    monkeypatch.setattr(ray, "put", lambda value: value)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    grid = RayGrid(TWO_WORKERS, tiny_data(sizes=(8, 7, 6, 5, 4), test_sizes=(1,) * 5))
    grid._seconds = 0.1  # of the round before: a short one
    return grid


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
    idle_ray_grid._sizes, idle_ray_grid._workers = sizes, workers  # type: ignore[assignment]
    messages = [instruction(k, 1, arrays(0.0)) for k in range(len(sizes))]
    chunks = _clients(idle_ray_grid._chunks(messages))
    assert sorted(client for chunk in chunks for client in chunk) == list(range(len(sizes)))
    assert len(chunks) == min(len(sizes), workers)
    loads = [sum(sizes[client] for client in chunk) for chunk in chunks]
    assert loads == sorted(loads, reverse=True)
    # A task was the lightest of all when it got the last, its smallest, client.
    for chunk, load in zip(chunks, loads, strict=True):
        assert load - min((sizes[client] for client in chunk), default=0) <= min(loads)
