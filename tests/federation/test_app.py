"""The ClientApp around a node: what it is told, what it answers, what it keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from support.helpers import config, same_weights, tiny_data, unpack_update, weights_of

from fedexp.core.roles import Order, State
from fedexp.federation.client import ClientNode
from fedexp.flower.app import client_app
from fedexp.flower.grid import CohortView
from fedexp.flower.messages import Reply, pack_order, pack_state, unpack_state

Work = Callable[[State], Reply]


class Scripted:
    """A node that does as told with a client's state; notes how it is called."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self.calls: list[tuple[str, int, int, Order]] = []

    def train(self, client: int, server_round: int, order: Order, state: State) -> Reply:
        self.calls.append(("train", client, server_round, order))
        return self._work(state)

    def evaluate(self, client: int, server_round: int, order: Order, state: State) -> Reply:
        self.calls.append(("evaluate", client, server_round, order))
        return self._work(state)

    def personalise(self, client: int, server_round: int, order: Order, state: State) -> Reply:
        self.calls.append(("personalise", client, server_round, order))
        return self._work(state)


def _context(partition: int, **state: Any) -> Context:
    context = Context(1, 987654321, {"partition-id": partition}, RecordDict(), {})
    pack_state(state, context.state)
    return context


def _message(kind: str, order: Order | None = None, server_round: int = 1) -> Message:
    CohortView([])  # sets who this process is
    content = RecordDict() if order is None else pack_order(order, server_round)
    return Message(content, dst_node_id=987654321, message_type=kind)


ORDER = Order(weights_of(1.0, 2.0), {"control": weights_of(3.0)}, {"rate": 0.5}, (1, 2))


@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_a_node_is_told_of_its_partition_the_round_and_the_order(kind: str) -> None:
    node = Scripted(lambda _: Reply(1, weights_of(0.0)))
    client_app(node)(_message(kind, ORDER, 7), _context(2))
    ((called, client, server_round, order),) = node.calls
    assert (called, client, server_round) == (kind, 2, 7)
    assert same_weights(order.weights, ORDER.weights)
    assert same_weights(order.arrays["control"], ORDER.arrays["control"])
    assert (order.numbers, order.examples_of) == ({"rate": 0.5}, (1, 2))


def test_what_a_node_answers_is_the_reply() -> None:
    reply = Reply(3, weights_of(4.0), 0.25, {"control": weights_of(5.0)}, {"norm": 1.5})
    app = client_app(Scripted(lambda _: reply))
    update = unpack_update(app(_message("train", ORDER), _context(2)), 1)
    assert update.client == 987654321  # the node's, of which the grid knows the partition
    assert same_weights(update.weights, weights_of(4.0))
    assert same_weights(update.arrays["control"], weights_of(5.0))
    assert (update.num_examples, update.loss, update.numbers) == (3, 0.25, {"norm": 1.5})
    tested = app(_message("evaluate", ORDER), _context(2))
    assert tested.content.metric_records["metrics"]["norm"] == 1.5


def test_what_is_kept_is_there_next_time() -> None:
    def count(state: State) -> Reply:
        calls = state.get("calls", 0)
        assert isinstance(calls, int)
        state["calls"] = calls + 1
        state["seen"] = weights_of(float(calls))
        return Reply(1, weights_of(float(calls)))

    app, context = client_app(Scripted(count)), _context(0)
    found = [
        unpack_update(app(_message("train", ORDER), context), 1).weights["w"].tolist()
        for _ in range(3)
    ]
    assert found == [[0.0], [1.0], [2.0]]
    kept = unpack_state(context.state)
    assert kept["calls"] == 3
    assert same_weights(kept["seen"], weights_of(2.0))  # type: ignore[arg-type]


def test_what_is_forgotten_is_gone() -> None:
    def forget(state: State) -> Reply:
        assert state["calls"] == 5
        del state["calls"]
        return Reply(1, weights_of(0.0))

    context = _context(0, calls=5)
    client_app(Scripted(forget))(_message("train", ORDER), context)
    assert len(context.state) == 0


def test_a_node_that_raises_leaves_the_state_as_it_was() -> None:
    def fail(state: State) -> Reply:
        state["calls"] = 99
        raise OSError("disk is full")

    context = _context(0, calls=5)
    with pytest.raises(OSError, match="disk is full"):
        client_app(Scripted(fail))(_message("train", ORDER), context)
    assert unpack_state(context.state) == {"calls": 5}


def test_state_that_cannot_be_kept_fails_the_client() -> None:
    def keep(state: State) -> Reply:
        state["calls"] = None  # type: ignore[assignment]
        return Reply(1, weights_of(0.0))

    with pytest.raises(TypeError, match=r"job\.state\['calls'\]"):
        client_app(Scripted(keep))(_message("train", ORDER), _context(0))


def test_a_test_reads_the_state_and_changes_nothing_in_it() -> None:
    def look(state: State) -> Reply:
        calls = state["calls"]
        assert isinstance(calls, int)
        state["calls"] = 99
        return Reply(1, numbers={"seen": calls})

    context = _context(0, calls=5)
    reply = client_app(Scripted(look))(_message("evaluate", ORDER), context)
    assert reply.content.metric_records["metrics"]["seen"] == 5
    assert unpack_state(context.state) == {"calls": 5}


def test_a_node_without_state_leaves_flowers_context_empty() -> None:
    context = _context(0)
    client_app(Scripted(lambda _: Reply(1, weights_of(0.0))))(_message("train", ORDER), context)
    assert len(context.state) == 0


@pytest.mark.parametrize("partition", [0, 2])
def test_every_node_says_which_partition_it_holds(partition: int) -> None:
    app = client_app(ClientNode(config(), tiny_data))
    answer = app(_message("query"), _context(partition))
    assert answer.content["config"] == ConfigRecord({"partition-id": partition})
