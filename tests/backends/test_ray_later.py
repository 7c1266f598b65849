"""Clients in this process until Ray's workers can take over."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from typing import ClassVar

import pytest
from flwr.app import Message
from support.helpers import Clients, config, initial_weights, same_weights, tiny_data, with_fault

from fedexp.backends import ray_later, ray_session
from fedexp.backends.inline import InlineGrid
from fedexp.backends.ray_later import Later, LaterGrid
from fedexp.config import backend as backend_options
from fedexp.config.backend import FlowerBackend, InlineBackend, RayBackend
from fedexp.config.schema import Config
from fedexp.core.options import FedexpError
from fedexp.core.roles import Order
from fedexp.data.federated import FederatedData
from fedexp.federation.client import ClientNode
from fedexp.flower.app import client_app
from fedexp.flower.messages import pack_order, weights_in


@pytest.fixture(autouse=True)
def two_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend_options, "usable_cpus", lambda: 2)


class Noted(Later):
    """Starts no Ray, but counts how often it would."""

    starts = 0

    def start(self, config: Config) -> None:
        self.starts += 1

    def is_ready(self, config: Config) -> bool:
        return False


def _messages(server_round: int = 1, kind: str = "train") -> list[Message]:
    content = pack_order(Order(initial_weights(config())), server_round)
    return [Message(content, dst_node_id=k, message_type=kind) for k in (0, 1, 2)]


def _grid(data: FederatedData | None = None, later: Later | None = None) -> LaterGrid:
    return LaterGrid(config(backend=RayBackend()), data or tiny_data(), later or Later())


class Workers(InlineGrid):
    """Stand in for Ray's workers, and note who was trained on them."""

    trained: ClassVar[list[int]] = []

    def __init__(self, experiment: Config, data: FederatedData) -> None:
        super().__init__(client_app(ClientNode(experiment, lambda: data)), 3)

    def exchange(self, messages: list[Message]) -> Iterator[Message]:
        self.trained.extend(message.metadata.dst_node_id for message in messages)
        return super().exchange(messages)


@pytest.mark.parametrize("here", [0, 1, 2, 3])
def test_workers_get_the_clients_that_are_left(here: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedexp.backends.ray.RayGrid", Workers)
    monkeypatch.setattr(Workers, "trained", [])
    _take_over_after(here, monkeypatch)
    assert Workers.trained == [0, 1, 2][here:]


@pytest.mark.slow  # Ray's start
@pytest.mark.parametrize("here", [0, 2])
@pytest.mark.usefixtures("two_workers")
def test_rays_workers_take_over_in_the_middle_of_a_round(
    here: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _take_over_after(here, monkeypatch)


def _take_over_after(here: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = iter([False] * here + [True])
    monkeypatch.setattr(ray_session, "is_for", lambda _: True)
    monkeypatch.setattr(ray_session, "is_warm", lambda: next(asked))
    grid, told = _grid(), list[int]()
    grid.on_reply = told.append
    replies = list(grid.send_and_receive(_messages()))
    alone = list(Clients(config(), tiny_data()).grid.send_and_receive(_messages()))
    for mine, theirs in zip(replies, alone, strict=True):
        assert same_weights(*(weights_in(r.content, "arrays") for r in (mine, theirs)))
    assert told == sorted(told)
    assert told[-1] == 3
    assert told[:here] == list(range(1, here + 1))


def test_a_short_run_does_without_ray() -> None:
    later = Noted()
    replies = _grid(later=later).send_and_receive(_messages())
    assert not any(reply.has_error() for reply in replies)
    assert later.starts == 0


@pytest.mark.parametrize(("cpus", "expected"), [(2, 3), (1, 0)])
def test_ray_starts_where_it_saves_more_than_it_takes(
    cpus: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend_options, "usable_cpus", lambda: cpus)
    monkeypatch.setattr(ray_later, "START", 0.0)
    later = Noted()
    list(_grid(later=later).send_and_receive(_messages()))
    assert later.starts == expected  # after every client, as none of them is taken at its word


def test_short_runs_of_a_command_add_up() -> None:
    later = Noted()
    later.spent = 9.0  # in half the time by two processes, which saves 4.5 of 5 seconds
    list(_grid(later=later).send_and_receive(_messages(3)))
    assert (later.starts, later.spent > 9.0) == (0, True)
    later.spent = 10.0
    list(_grid(later=later).send_and_receive(_messages(3)))
    assert later.starts > 0


def test_what_is_left_follows_from_the_fastest_client_so_far() -> None:
    data = tiny_data(sizes=(10, 30, 20), test_sizes=(1, 1, 1))
    messages = _messages(server_round=2)
    left = ray_later._Left(config(rounds=4), data, messages)  # 60 examples, three times
    assert left.after(messages[0], 1.0) == pytest.approx(0.1 * 170)
    assert left.after(messages[1], 1.5) == pytest.approx(0.05 * 140)
    assert left.after(messages[2], 4.0) == pytest.approx(0.05 * 120)
    tests = ray_later._Left(config(rounds=4), data, _messages(kind="evaluate"))
    assert tests.after(messages[0], 1.0) == 0.0


def test_where_ray_cannot_be_started_clients_stay_here(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries, tried = list[Config](), threading.Event()

    def refuse(experiment: Config) -> None:
        tries.append(experiment)
        tried.set()
        raise FedexpError("Ray did not start: no room in /dev/shm")

    monkeypatch.setattr(ray_session, "start_ray", refuse)
    monkeypatch.setattr(ray_session, "is_for", lambda _: False)
    monkeypatch.setattr(ray_later, "START", 0.0)
    later = Later()
    with caplog.at_level(logging.WARNING, "fedexp"):
        for number in (1, 2, 3):
            replies = list(_grid(later=later).send_and_receive(_messages(number)))
            assert not any(reply.has_error() for reply in replies)
            assert tried.wait(timeout=10)
            while not later.refused:
                time.sleep(0.01)
    assert len(tries) == 1
    assert "no room in /dev/shm" in caplog.text


def test_a_client_that_raises_is_answered_for() -> None:
    replies = list(_grid(with_fault(tiny_data(), bad_client=1)).send_and_receive(_messages()))
    assert [reply.has_error() for reply in replies] == [False, True, False]


@pytest.mark.parametrize(
    "asking",
    [
        RayBackend(workers=1),
        RayBackend(address="auto"),
        RayBackend(timeout=5.0),
        RayBackend(num_gpus_per_worker=0.5),
        RayBackend(stack=2),
    ],
)
def test_who_asks_for_workers_has_them_from_the_start(asking: RayBackend) -> None:
    assert (asking.starts_ray, asking.module) == (True, "ray")


def test_nobody_else_waits_for_ray() -> None:
    for backend in (RayBackend(), RayBackend(stack=1)):
        assert (backend.starts_ray, backend.module) == (False, "ray_later")
    assert (FlowerBackend().starts_ray, FlowerBackend().module) == (True, "flower")
    assert (InlineBackend().starts_ray, InlineBackend().module) == (False, "inline")
