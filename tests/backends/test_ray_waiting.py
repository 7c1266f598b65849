"""How long Ray's tasks are waited for, on a machine whose clock is the test's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from flwr.app import ArrayRecord, Message, RecordDict
from support.helpers import config, instruction, tiny_data

from fedexp.backends import ray as backend
from fedexp.backends.base import GRACE
from fedexp.backends.ray import RayGrid, _at_once
from fedexp.config.backend import RayBackend
from fedexp.config.clients import ClientsConfig
from fedexp.flower.messages import error_reply

NUM = 16


class Machine:
    """Stands in for Ray: tasks run so many at a time, in order, and take so long for every client.

    Attributes:
        asked: How many clients were asked, those of every try.
        stopped: Tasks that were given up.
    """

    exceptions = ray.exceptions

    def __init__(self, have: Mapping[str, float], places: int, seconds: float) -> None:
        self._have, self._places, self._seconds = have, places, seconds
        self._work: list[Sequence[Any]] = []
        self._queue: list[int] = []
        self._ends: dict[int, float] = {}  # of the tasks that are at work
        self._done: list[int] = []
        self.now = 0.0
        self.asked = self.stopped = 0

    def put(self, value: Any) -> Any:
        return value

    def cluster_resources(self) -> Mapping[str, float]:
        return self._have

    def remote(self, **_: Any) -> Any:
        return lambda _: SimpleNamespace(remote=self._submit)

    def _submit(self, _setup: Any, contents: Any, work: Sequence[Any], _timeout: Any) -> int:
        self.asked += len(work)
        self._work.append(work)
        self._queue.append(len(self._work) - 1)
        return self._queue[-1]

    def wait(
        self, tasks: list[int], timeout: float | None, **_: Any
    ) -> tuple[list[int], list[int]]:
        until = math.inf if timeout is None else self.now + timeout
        while True:
            while self._queue and len(self._ends) < self._places:
                task = self._queue.pop(0)
                self._ends[task] = self.now + self._seconds * len(self._work[task])
            ready = [task for task in tasks if task in self._done]
            first = min(self._ends, key=lambda task: self._ends[task], default=-1)
            if ready or first < 0 or self._ends[first] > until:
                self.now = self.now if ready else until
                return ready[:1], []
            self.now = self._ends.pop(first)
            self._done.append(first)

    def get(self, task: int) -> Any:
        return [
            (error_reply(instruction(meta.dst_node_id, 1, ArrayRecord()), "done"), RecordDict())
            for meta, _, _ in self._work[task]
        ]

    def cancel(self, task: int, force: bool) -> None:
        self.stopped += 1
        self._ends.pop(task, None)
        self._queue = [other for other in self._queue if other != task]


@pytest.mark.parametrize(
    ("have", "gpus", "places"),
    [
        ({"CPU": 2.0}, 0.0, 2),
        ({"CPU": 16.0, "GPU": 1.0}, 0.5, 2),
        ({"CPU": 16.0, "GPU": 1.0}, 1.0, 1),
    ],
    ids=["two CPUs", "two halves of a GPU", "one GPU"],
)
def test_who_waits_for_a_worker_is_not_late(
    have: dict[str, float], gpus: float, places: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    timeout = 2 * GRACE
    machine = Machine(have, places, seconds=0.9 * timeout)
    monkeypatch.setattr(backend, "ray", machine)
    clock = SimpleNamespace(monotonic=lambda: machine.now, perf_counter=lambda: machine.now)
    monkeypatch.setattr(backend, "time", clock)
    chosen = RayBackend(num_gpus_per_worker=gpus, timeout=timeout)
    grid = RayGrid(
        config(backend=chosen, clients=ClientsConfig(num=NUM)), tiny_data(sizes=(6,) * NUM)
    )
    content = RecordDict()
    messages = [Message(content, dst_node_id=k, message_type="train") for k in range(NUM)]
    replies = list(grid.send_and_receive(messages))
    assert [reply.error.reason for reply in replies] == ["done"] * NUM
    assert (machine.asked, machine.stopped) == (NUM, 0)


@pytest.mark.parametrize(
    ("have", "cpus", "gpus", "expected"),
    [
        ({"CPU": 4.0}, 1.0, 0.0, 4),
        ({"CPU": 4.0}, 1.5, 0.0, 2),
        ({"CPU": 4.0, "GPU": 2.0}, 1.0, 0.0, 4),
        ({"CPU": 16.0, "GPU": 1.0}, 1.0, 0.25, 4),
        ({"CPU": 16.0, "GPU": 2.0}, 1.0, 0.4, 4),  # two on each
        ({"CPU": 16.0, "GPU": 4.0}, 1.0, 2.0, 2),
        ({"CPU": 2.0, "GPU": 4.0}, 1.0, 0.1, 2),
    ],
)
def test_how_many_tasks_run_at_the_same_time(
    have: dict[str, float], cpus: float, gpus: float, expected: int
) -> None:
    asked = RayBackend(num_cpus_per_worker=cpus, num_gpus_per_worker=gpus)
    assert _at_once(have, asked) == expected
