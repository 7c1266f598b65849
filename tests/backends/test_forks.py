"""Clients in forks of the program, beside it."""

from __future__ import annotations

import json
import multiprocessing
import os
import struct
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

from fedexp.backends import forks as forks_module
from fedexp.backends import ray_later
from fedexp.backends.base import call_client
from fedexp.backends.forks import Fork, Forks, _packed, _piece
from fedexp.backends.ray_later import Later, LaterGrid
from fedexp.backends.slots import Slots
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
from fedexp.models.jax_mlp import JaxMlp

SCRIPT = """
import json, os, signal, sys
from collections import Counter

from fedexp import run
from fedexp.backends.forks import Forks
from fedexp.core import forked

forked.is_program = True

fault, taken, sent = sys.argv[1], Counter(), []
answers, feed = Forks.answers, Forks.feed

def counted(self, waiting, *, patiently):
    for answer in answers(self, waiting, patiently=patiently):
        taken["answers"] += 1
        yield answer

def struck(self, waiting, states):
    if fault == "puzzled" and not sent:
        sent.append(self._forks[0].pipe.send_bytes(b"what nobody can unpack"))
    feed(self, waiting, states)
    if fault == "killed" and self.busy and not sent:
        sent.append(os.kill(self._forks[0].process.pid, signal.SIGKILL))

Forks.answers, Forks.feed = counted, struck
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
def test_forks_train_to_the_same_bits(tmp_path: Path) -> None:
    answers, mine, inline = _script(tmp_path, "none", (), ("backend=inline",))
    assert answers > 0
    assert mine == inline


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="forks train on Linux alone")
def test_forks_go_on_to_another_run(tmp_path: Path) -> None:
    answers, first, other, inline, inline_other = _script(
        tmp_path, "none", (), ("seed=1",), ("backend=inline",), ("backend=inline", "seed=1")
    )
    assert answers > 0
    assert (first, other) == (inline, inline_other)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="forks train on Linux alone")
@pytest.mark.parametrize(("fault", "code"), [("killed", -9), ("puzzled", 1)])
def test_what_a_fork_owes_that_ended_is_asked_again(fault: str, code: int, tmp_path: Path) -> None:
    strategy = ("strategy=scaffold",)  # clients keep something
    _, struck, inline = _script(tmp_path, fault, strategy, ("backend=inline", *strategy))
    assert struck == inline
    assert (tmp_path / "0" / "failures.csv").read_text().count("\n") == 1
    assert f"exit code {code}" in (tmp_path / "0" / "run.log").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="forks train on Linux alone")
def test_jobs_whose_first_one_had_forks_end(tmp_path: Path) -> None:
    # The first job runs alone in a fork of the program, and has forks of its own.
    words = ("seed=0,1,2,3", "rounds=1", "training.local_steps=1", "clients.num=4", "partition=iid")
    command = [sys.executable, "-m", "fedexp", "-m", *words, "hydra.sweep.dir=all"]
    # What is left over would keep the pipe open, and this waiting.
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("all/*/summary.json"))) == 4


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
    monkeypatch.setattr(forks_module, "IN_A_PIECE", 2 * weights)
    kept = states.setdefault(1, RecordDict())
    pack_state({"c": {"w": np.zeros(weights // 4 + 1, dtype=np.float32)}}, kept)
    sizes, waiting = [], deque(_messages())
    while waiting:
        sizes.append(len(_piece(waiting, 3, states)))
    assert sizes == [1, 1, 1]  # what client 1 keeps is more than another may have beside it


def test_what_messages_share_is_sent_once() -> None:
    messages, others = _messages(), _messages(2)
    contents, work = _packed(messages, {2: RecordDict()}, None)
    assert contents == [messages[0].content]
    assert [(metadata.dst_node_id, place) for metadata, place, _ in work] == [
        (0, 0),
        (1, 0),
        (2, 0),
    ]
    # A process still has what it was sent last.
    contents, work = _packed([messages[0], others[1], messages[2]], {}, messages[0].content)
    assert contents == [None, others[1].content]
    assert [place for _, place, _ in work] == [0, 1, 0]


class Noted:
    """A pipe to nobody, that notes what it is sent."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, what: Any) -> None:
        self.sent.append(what)

    def close(self) -> None:
        """Nobody listens."""


class Ended:
    """A process that is no more."""

    exitcode = -9

    def kill(self) -> None:
        """It has ended."""

    def join(self) -> None:
        """It has ended."""


def _fork(pipe: Any, owed: deque[Message] | None = None, latest: int = 0) -> Fork:
    process: Any = Ended()
    return Fork(process, pipe, Slots(), owed or deque(), latest, is_ready=True)


@pytest.mark.parametrize(("clients", "owes", "gets"), [(1, 0, 1), (2, 1, 1), (1, 1, 0), (2, 2, 0)])
def test_nobody_is_sent_more_than_its_share_of_what_is_left(
    clients: int, owes: int, gets: int
) -> None:
    # Were it sent more, this process would wait for it with nothing to do.
    forks = Forks(0, client_app(ClientNode(config(), tiny_data)), config())
    owed, waiting = deque(_messages()[:owes]), deque(_messages()[:clients])
    forks._forks.append(_fork(Noted(), owed, latest=2))
    forks.feed(waiting, {})
    assert len(waiting) == clients - gets


def test_a_content_is_sent_again_only_after_another() -> None:
    forks, pipe = Forks(0, client_app(ClientNode(config(), tiny_data)), config()), Noted()
    forks._forks.append(_fork(pipe))
    messages, others = _messages(), _messages(2)
    for message in (messages[0], messages[1], others[2], messages[0]):
        forks.feed(deque([message]), {})
        forks._forks[0].owed.clear()
    first, second = messages[0].content, others[0].content
    assert [contents for contents, _ in pipe.sent] == [[first], [None], [second], [first]]


def test_a_process_is_sent_a_piece_ahead_once_it_has_shown_that_it_computes() -> None:
    fork = _fork(Noted())
    fork.is_ready = False
    assert not fork.has_room
    fork.is_ready = True
    assert fork.has_room
    fork.owed.extend(_messages())
    fork.latest = 2
    assert not fork.has_room
    fork.owed.popleft()
    assert fork.has_room


def test_nobody_is_waited_for_who_owes_nothing() -> None:
    forks = Forks(0, client_app(ClientNode(config(), tiny_data)), config())
    assert list(forks.answers(deque(), patiently=True)) == []


def test_a_fork_that_ends_in_the_middle_of_an_answer_owes_nothing() -> None:
    forks = Forks(0, client_app(ClientNode(config(), tiny_data)), config())
    ours, theirs = multiprocessing.Pipe()
    forks._forks.append(_fork(ours, deque(_messages())))
    os.write(theirs.fileno(), struct.pack("!i", 1000) + b"not all of it")
    theirs.close()
    waiting = deque[Message]()
    assert list(forks.answers(waiting, patiently=True)) == []
    assert [message.metadata.dst_node_id for message in waiting] == [0, 1, 2]
    assert len(forks) == 0


class Played(Forks):
    """Stand in for the processes: take what they would, and answer as clients do here."""

    def __init__(self, dies: bool = False) -> None:
        self._owed, self._dies = deque[Message](), dies
        self._app = client_app(ClientNode(config(), tiny_data))
        self.dismissed = 0

    def __len__(self) -> int:
        return 0 if self.dismissed else 1

    @property
    def busy(self) -> bool:
        return bool(self._owed)

    @property
    def told(self) -> bool:
        return False

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
        self._owed.clear()


class Lent(Later):
    """Has played processes, and notes whether it would start Ray."""

    def __init__(self, played: Played) -> None:
        super().__init__()
        self._forks, self.starts = played, 0

    def forks(self, config: Config, app: Any) -> Forks | None:
        return self._forks

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


def test_answers_that_nobody_waits_for_are_not_taken_for_others() -> None:
    played = Played()
    grid, _ = _grid(played)
    abandoned = grid.exchange(_messages())  # kept, as a traceback keeps it
    next(iter(abandoned))
    assert played.busy
    replies = list(grid.send_and_receive(_messages()))
    assert (played.dismissed, len(replies)) == (1, 3)


def test_ray_takes_over_from_forks_in_long_runs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend_options, "usable_cpus", lambda: 2)
    grid, later = _grid(Played())
    later.spent = ray_later.LONG - 0.001
    list(grid.send_and_receive(_messages(server_round=3)))
    assert later.starts == 1


def test_forks_are_for_one_thread_and_for_runs_that_have_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    later = Lent(Played())
    app = client_app(ClientNode(config(), tiny_data))
    assert Later.forks(later, config(backend=RayBackend(threads=2)), app) is None
    assert Later.forks(later, config(backend=RayBackend(), model=JaxMlp()), app) is None
    monkeypatch.setattr(forked, "among_others", True)
    assert Later.forks(later, config(backend=RayBackend()), app) is None
