"""Nodes that come, go, forget and answer late, behind the grid of a deployment; no process is started."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import pytest
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from support.helpers import config, initial_weights, played_by, tiny_data

from fedexp.backends import node_grid, sending
from fedexp.backends.node_grid import SILENT, NodeGrid
from fedexp.backends.sending import ABSENT
from fedexp.core.options import FedexpError
from fedexp.core.roles import Job, Order
from fedexp.federation.client import ClientNode
from fedexp.flower.app import client_app
from fedexp.flower.internals import GONE, UNHEARD, identify
from fedexp.flower.keeping import LOST, NodeApp
from fedexp.flower.messages import CONFIG, PARTITION_ID, pack_order


class Node:
    """A SuperNode: it keeps the context of its client between messages."""

    def __init__(self, number: int, partition: object, app: ClientApp) -> None:
        self.number, self._app = number, app
        config = {} if partition is None else {PARTITION_ID: partition}
        self.context = Context(1, number, config, RecordDict(), {})  # type: ignore[arg-type]

    def answer(self, message: Message) -> Message:
        try:
            return self._app(message, self.context)
        except Exception as error:  # as Flower does
            return Message(Error(2, str(error)), reply_to=message)


class Federation:
    """Stands in for Flower's grid: nodes by number, and what becomes of the messages to them."""

    def __init__(self, app: ClientApp) -> None:
        self.app, self.nodes = app, dict[int, Node]()
        self.silent: set[int] = set()
        self.late: set[int] = set()
        self.asked: list[tuple[int, str]] = []
        self._replies: dict[str, Message] = {}

    def add(self, number: int, partition: object) -> None:
        self.nodes[number] = Node(number, partition, self.app)

    def get_node_ids(self) -> list[int]:
        return sorted(self.nodes)

    def push_messages(self, messages: list[Message]) -> list[str]:
        keys = []
        for message in messages:
            number, key = message.metadata.dst_node_id, str(len(self.asked))
            self.asked.append((number, message.metadata.message_type))
            message.metadata.__dict__["_message_id"] = key
            keys.append(key)
            if number not in self.silent:  # late: it does its work, and nobody hears of it
                reply = self.nodes[number].answer(message)
                if number not in self.late:
                    self._replies[key] = reply
        return keys

    def pull_messages(self, keys: list[str]) -> list[Message]:
        return [self._replies.pop(key) for key in keys if key in self._replies]


def _counts(job: Job) -> None:
    calls = int(str(job.state.get("calls", 0))) + 1
    job.state["calls"] = calls
    job.send(job.model, numbers={"calls": calls})


@pytest.fixture
def federation(monkeypatch: pytest.MonkeyPatch) -> Federation:
    monkeypatch.setattr(sending, "PULL_INTERVAL", 0.005)
    identify(1)
    node = ClientNode(played_by(_counts), tiny_data)
    found = Federation(client_app(node, NodeApp()))
    for client in range(3):
        found.add(10 + client, client)
    return found


def _grid(federation: Federation, timeout: float | None = None) -> NodeGrid:
    grid = NodeGrid(federation, 3, timeout)  # type: ignore[arg-type]
    grid.discover()
    return grid


def _train(grid: NodeGrid) -> list[object]:
    """Train all clients once; return how often each says that it was called, or why it failed."""
    content = pack_order(Order(initial_weights(config())), 1)
    messages = [Message(content, dst_node_id=k, message_type="train") for k in range(3)]
    replies = list(grid.send_and_receive(messages))
    assert [reply.metadata.src_node_id for reply in replies] == [0, 1, 2]
    assert all(
        reply.has_error() or set(reply.content) == {"arrays", "metrics"} for reply in replies
    )
    return [
        reply.error.reason
        if reply.has_error()
        else reply.content.metric_records["metrics"]["calls"]
        for reply in replies
    ]


def test_clients_keep_their_state_from_round_to_round(federation: Federation) -> None:
    grid = _grid(federation)
    assert [_train(grid) for _ in range(3)] == [[1, 1, 1], [2, 2, 2], [3, 3, 3]]
    assert grid.client_states() == {k: {"calls": 3} for k in range(3)}


def test_what_was_refused_never_happened(federation: Federation) -> None:
    grid = _grid(federation)
    _train(grid)
    _train(grid)
    grid.take_back([1])
    assert _train(grid) == [3, 2, 3]
    grid.take_back([0, 1, 2])
    assert _train(grid) == [3, 2, 3]


def test_a_client_that_was_never_heard_of_can_be_taken_back(federation: Federation) -> None:
    grid = _grid(federation)
    _train(grid)
    grid.take_back([0, 1, 2])
    assert _train(grid) == [1, 1, 1]


def test_a_reply_that_comes_too_late_never_happened(federation: Federation) -> None:
    grid = _grid(federation, timeout=0.1)
    _train(grid)
    federation.late = {11}
    start = time.monotonic()
    assert _train(grid) == [2, "no reply within backend.timeout=0.1 s", 2]
    assert time.monotonic() - start < 2
    grid.take_back([1])
    federation.late = set()
    assert _train(grid) == [3, 2, 3]


def test_a_node_that_is_gone_is_not_waited_for_and_is_taken_again(federation: Federation) -> None:
    grid = _grid(federation)
    _train(grid)
    del federation.nodes[12]
    assert _train(grid) == [2, 2, ABSENT]
    grid.take_back([2])
    federation.add(22, 2)  # started anew: another number, and nothing of what it kept
    assert _train(grid) == [3, 3, LOST]
    grid.take_back([2])
    assert _train(grid) == [4, 4, 1]


def test_a_node_that_keeps_nothing_returns_without_a_failure(federation: Federation) -> None:
    def simple(job: Job) -> None:
        job.send(job.model, numbers={"calls": 0})

    federation.app = client_app(ClientNode(played_by(simple), tiny_data), NodeApp())
    for client in range(3):
        federation.add(10 + client, client)
    grid = _grid(federation)
    _train(grid)
    del federation.nodes[12]
    _train(grid)
    grid.take_back([2])
    federation.add(22, 2)
    assert _train(grid) == [0, 0, 0]
    assert grid.client_states() == {}


def test_a_state_goes_to_other_nodes(federation: Federation) -> None:
    before = _grid(federation)
    _train(before)
    _train(before)
    states = before.client_states()
    for client in range(3):  # as after a kill: a new run, whose nodes know nothing
        federation.add(10 + client, client)
    grid = _grid(federation)
    grid.restore_states(states)
    assert _train(grid) == [3, 3, 3]
    assert grid.client_states() == {k: {"calls": 3} for k in range(3)}


def test_a_state_that_cannot_be_restored_ends_the_run(federation: Federation) -> None:
    grid = _grid(federation, timeout=0.1)
    federation.silent = {11}
    with pytest.raises(FedexpError, match=r"^backend=deployment: client 1 cannot go on .*timeout"):
        grid.restore_states({0: {"calls": 1}, 1: {"calls": 1}})


def test_a_client_that_cannot_be_asked_what_it_keeps_keeps_what_was_known(
    federation: Federation,
) -> None:
    grid = _grid(federation, timeout=0.1)
    _train(grid)
    assert grid.client_states()[1] == {"calls": 1}
    _train(grid)
    federation.silent = {11}
    assert grid.client_states() == {0: {"calls": 2}, 1: {"calls": 1}, 2: {"calls": 2}}
    federation.silent = set()
    assert grid.client_states()[1] == {"calls": 2}


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (GONE, SILENT),
        (next(iter(UNHEARD)), "no reply within backend.timeout=5 s"),
        (99, "whatever it says, in one line"),
    ],
)
def test_what_flower_says_of_a_node_is_told_in_our_words(
    federation: Federation, code: int, reason: str
) -> None:
    def failing(message: Message, context: Context) -> Message:
        if message.metadata.message_type == "query":
            return federation.app(message, context)
        return Message(Error(code, "whatever it says,\nin one line"), reply_to=message)

    federation.nodes[11]._app = failing  # type: ignore[assignment]
    assert _train(_grid(federation, timeout=5.0)) == [1, reason, 1]


def test_only_who_was_at_work_is_asked_what_it_keeps(federation: Federation) -> None:
    grid = _grid(federation)
    _train(grid)
    grid.client_states()
    federation.asked.clear()
    grid.client_states()
    assert federation.asked == []


@pytest.mark.parametrize("partition", [None, 3, -1, "x"])
def test_a_node_that_holds_no_partition_of_the_run_takes_no_part(
    federation: Federation, partition: object, caplog: pytest.LogCaptureFixture
) -> None:
    federation.add(99, partition)
    with caplog.at_level(logging.WARNING, "fedexp"):
        grid = _grid(federation)
        _train(grid)
    assert {number for number, kind in federation.asked if kind == "train"} == {10, 11, 12}
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("SuperNode 99 takes no part: ")


def test_of_two_nodes_with_the_same_partition_the_later_one_is_asked(
    federation: Federation, caplog: pytest.LogCaptureFixture
) -> None:
    grid = _grid(federation)
    federation.add(99, 1)
    with caplog.at_level(logging.WARNING, "fedexp"):
        _train(grid)
    assert {number for number, kind in federation.asked if kind == "train"} == {10, 99, 12}
    assert [r.getMessage() for r in caplog.records] == [
        "SuperNode 99 says that it holds partition 1, as 11 does: it is asked from now on"
    ]


def test_a_run_does_not_begin_before_every_client_has_a_node(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_grid, "JOIN", 0.1)
    del federation.nodes[11]
    federation.add(99, 7)
    with pytest.raises(
        FedexpError, match=r"no SuperNode holds partition 1: .*partition-id=1"
    ) as told:
        _grid(federation)
    assert "SuperNode 99: it says that it holds partition 7" in str(told.value)


@pytest.mark.parametrize("spoil", [lambda r: r.pop(CONFIG), lambda r: r.clear()])
def test_an_answer_without_a_partition_is_no_answer(
    federation: Federation, spoil: Callable[[RecordDict], object]
) -> None:
    def told(message: Message, context: Context) -> Message:
        reply = federation_app(message, context)
        spoil(reply.content)
        return reply

    federation_app = federation.app
    federation.add(99, 1)
    federation.nodes[99]._app = told  # type: ignore[assignment]
    grid = _grid(federation)
    assert _train(grid) == [1, 1, 1]
    assert (99, "train") not in federation.asked


def test_a_record_of_that_name_in_an_order_is_not_a_clients_business(
    federation: Federation,
) -> None:
    grid = _grid(federation)
    content = pack_order(Order(initial_weights(config())), 1)
    (reply,) = grid.send_and_receive([Message(content, dst_node_id=0, message_type="train")])
    assert not reply.has_error()
    assert set(content) == {"arrays", CONFIG}  # what the loop made is as it was
    assert isinstance(content[CONFIG], ConfigRecord)
