"""Clients in forks of the program, beside it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message, RecordDict
from support.helpers import Clients, config, initial_weights, same_weights, tiny_data

from fedexp.backends import hands as hands_module
from fedexp.backends import ray_later
from fedexp.backends.base import call_client
from fedexp.backends.hands import Hand, Hands, _packed, _piece
from fedexp.backends.ray_later import Later, LaterGrid
from fedexp.config import backend as backend_options
from fedexp.config.backend import RayBackend
from fedexp.config.schema import Config
from fedexp.core import forked
from fedexp.core.roles import Order
from fedexp.federation.client import ClientNode
from fedexp.flower.app import client_app
from fedexp.flower.grid import RUN_ID
from fedexp.flower.internals import identify
from fedexp.flower.messages import pack_order, pack_state, weights_in

SCRIPT = """
import json, os, signal, sys
from collections import Counter

from fedexp import run
from fedexp.backends.hands import Hands

fault, taken, sent = sys.argv[1], Counter(), []
answers, feed = Hands.answers, Hands.feed

def counted(self, waiting, *, patiently):
    for answer in answers(self, waiting, patiently=patiently):
        taken["answers"] += 1
        yield answer

def struck(self, waiting, states):
    feed(self, waiting, states)
    if fault == "killed" and self.busy and not sent:
        sent.append(os.kill(self._hands[0].process.pid, signal.SIGKILL))

Hands.answers, Hands.feed = counted, struck
short = ("rounds=3", "training.local_epochs=1", "clients.num=8", "partition=iid")
found = [run(*short, *more, folder=str(k)) for k, more in enumerate(MORE)]
print(json.dumps([taken["answers"], *(r.runs["model_sha256"].item() for r in found)]))
"""


def _script(folder: Path, fault: str, *more: tuple[str, ...]) -> list[Any]:
    """Run an experiment as often as there is something more to it; return answers and hashes."""
    code = SCRIPT.replace("MORE", repr(more))
    done = subprocess.run(
        [sys.executable, "-c", code, fault], capture_output=True, text=True, cwd=folder, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="forks train on Linux alone")
def test_forks_train_to_the_same_bits_one_run_after_another(tmp_path: Path) -> None:
    answers, first, other, inline, inline_other = _script(
        tmp_path, "none", (), ("seed=1",), ("backend=inline",), ("backend=inline", "seed=1")
    )
    assert answers > 0
    assert (first, other) == (inline, inline_other)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="forks train on Linux alone")
def test_what_a_fork_owes_that_was_killed_is_asked_again(tmp_path: Path) -> None:
    strategy = ("strategy=scaffold",)  # clients keep something
    _, struck, inline = _script(tmp_path, "killed", strategy, ("backend=inline", *strategy))
    assert struck == inline
    assert (tmp_path / "0" / "failures.csv").read_text().count("\n") == 1
    assert "exit code -9" in (tmp_path / "0" / "run.log").read_text()


@pytest.fixture(autouse=True)
def known() -> None:
    identify(RUN_ID)  # as a grid does; Flower makes no messages without


def _messages(server_round: int = 1) -> list[Message]:
    content = pack_order(Order(initial_weights(config())), server_round)
    return [Message(content, dst_node_id=k, message_type="train") for k in (0, 1, 2)]


def test_a_piece_is_bounded_by_clients_and_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = sum(array.nbytes for array in initial_weights(config()).values())
    waiting, states = deque(_messages()), dict[int, RecordDict]()
    assert [m.metadata.dst_node_id for m in _piece(waiting, 2, states)] == [0, 1]
    assert [m.metadata.dst_node_id for m in waiting] == [2]
    monkeypatch.setattr(hands_module, "IN_A_PIECE", 2 * weights)
    kept = states.setdefault(1, RecordDict())
    pack_state({"c": {"w": np.zeros(weights // 4 + 1, dtype=np.float32)}}, kept)
    sizes, waiting = [], deque(_messages())
    while waiting:
        sizes.append(len(_piece(waiting, 3, states)))
    assert sizes == [1, 1, 1]  # what client 1 keeps is more than another may have beside it


def test_what_messages_share_is_sent_once() -> None:
    messages = _messages()
    contents, work = _packed(messages, {2: RecordDict()})
    assert contents == [messages[0].content]
    assert [(metadata.dst_node_id, place) for metadata, place, _ in work] == [
        (0, 0),
        (1, 0),
        (2, 0),
    ]


def test_a_process_is_sent_a_piece_ahead_once_it_has_shown_that_it_computes() -> None:
    hand = Hand(None, None)  # type: ignore[arg-type]
    assert not hand.has_room
    hand.is_ready = True
    assert hand.has_room
    hand.owed.extend(_messages())
    hand.latest = 2
    assert not hand.has_room
    hand.owed.popleft()
    assert hand.has_room


def test_nobody_is_waited_for_who_owes_nothing() -> None:
    hands = Hands(0, client_app(ClientNode(config(), tiny_data)), config())
    assert list(hands.answers(deque(), patiently=True)) == []


class Played(Hands):
    """Stand in for the processes: take what they would, and answer as clients do here."""

    def __init__(self, dies: bool = False) -> None:
        self._hands, self._owed, self._dies = [], deque[Message](), dies
        self._app = client_app(ClientNode(config(), tiny_data))
        self.dismissed = 0

    @property
    def busy(self) -> bool:
        return bool(self._owed)

    def feed(self, waiting: deque[Message], states: dict[int, RecordDict]) -> None:
        if not self._owed and len(waiting) > 1:
            self._owed.append(waiting.popleft())

    def answers(self, waiting: deque[Message], *, patiently: bool) -> Iterator[Any]:
        while self._owed:
            message = self._owed.popleft()
            if self._dies:
                waiting.appendleft(message)
                self._dies = False
            else:
                yield call_client(self._app, message, 3, RecordDict())

    def dismiss(self) -> None:
        self.dismissed += 1


class Lent(Later):
    """Has played processes, and notes whether it would start Ray."""

    def __init__(self, played: Played) -> None:
        super().__init__()
        self._hands, self.starts = played, 0

    def hands(self, config: Config, app: Any) -> Hands | None:
        return self._hands

    def start(self, config: Config) -> None:
        self.starts += 1


def _grid(played: Played) -> tuple[LaterGrid, Lent]:
    later = Lent(played)
    return LaterGrid(config(backend=RayBackend()), tiny_data(), later), later


@pytest.mark.parametrize("dies", [False, True])
def test_whoever_has_time_takes_the_next_client(dies: bool) -> None:
    grid, later = _grid(Played(dies))
    told = list[int]()
    grid.on_reply = told.append
    replies = list(grid.send_and_receive(_messages()))
    alone = list(Clients(config(), tiny_data()).grid.send_and_receive(_messages()))
    for mine, theirs in zip(replies, alone, strict=True):
        assert same_weights(*(weights_in(r.content, "arrays") for r in (mine, theirs)))
    assert (told, later.starts) == ([1, 2, 3], 0)


def test_who_stops_in_mid_round_takes_no_answer_of_before() -> None:
    played = Played()
    grid, _ = _grid(played)
    replies = grid.exchange(_messages())
    next(replies)
    del replies
    assert played.dismissed == 1


def test_ray_takes_over_from_forks_in_long_runs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend_options, "usable_cpus", lambda: 2)
    grid, later = _grid(Played())
    later.spent = ray_later.LONG - 0.001
    list(grid.send_and_receive(_messages(server_round=3)))
    assert later.starts == 1


def test_forks_are_for_one_thread_and_for_runs_that_have_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    later = Later()
    app = client_app(ClientNode(config(), tiny_data))
    assert later.hands(config(backend=RayBackend(threads=2)), app) is None
    monkeypatch.setattr(forked, "among_others", True)
    assert later.hands(config(backend=RayBackend()), app) is None
