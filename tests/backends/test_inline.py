"""The grid that all backends share, and clients in this process."""

from __future__ import annotations

from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from support.helpers import (
    Clients,
    arrays,
    config,
    initial_weights,
    instruction,
    run_server,
    scripted_app,
    tiny_data,
    trained,
    with_fault,
)

from fedexp.backends.base import call_client
from fedexp.backends.inline import InlineGrid
from fedexp.core.options import FedexpError
from fedexp.core.roles import Order
from fedexp.flower.grid import CohortGrid, CohortView
from fedexp.flower.messages import pack_order


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
    clients = Clients(config(), with_fault(tiny_data(), bad_client=1))
    content = pack_order(Order(initial_weights(config())), 1)
    messages = [Message(content, dst_node_id=k, message_type="train") for k in range(3)]
    replies = list(clients.grid.send_and_receive(messages))
    assert [reply.has_error() for reply in replies] == [False, True, False]
    assert replies[1].error.reason == "ValueError: disk of client 1 is gone"
    assert replies[1].metadata.src_node_id == 1


def test_progress_is_told_after_every_inline_client() -> None:
    grid, told = _echo(), list[int]()
    grid.on_reply = told.append
    list(grid.send_and_receive([instruction(k, 1, arrays(1.0)) for k in range(3)]))
    assert told == [1, 2, 3]


def test_a_view_of_a_cohort_sends_nothing() -> None:
    view = CohortView([0, 2])
    assert list(view.get_node_ids()) == [0, 2]
    with pytest.raises(RuntimeError):
        view.send_and_receive([instruction(0, 1, arrays(1.0))])


def test_a_client_is_told_who_it_is_and_how_many_there_are() -> None:
    told: list[dict[str, Any]] = []
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        told.append(dict(context.node_config))
        return Message(RecordDict(), reply_to=message)

    grid = InlineGrid(app, 3)
    list(grid.send_and_receive([instruction(2, 1, arrays(1.0))]))
    assert told == [{"partition-id": 2, "num-partitions": 3}]


def test_a_call_leaves_the_state_that_it_was_given_alone() -> None:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        context.state["calls"] = ConfigRecord({"total": 7})
        return Message(RecordDict({"metrics": MetricRecord({"size": 1})}), reply_to=message)

    CohortView([])  # sets who this process is
    before = RecordDict({"calls": ConfigRecord({"total": 1})})
    _, after = call_client(app, instruction(0, 1, arrays(1.0)), 3, before)
    assert before["calls"] == ConfigRecord({"total": 1})
    assert after["calls"] == ConfigRecord({"total": 7})


def test_a_client_runs_when_its_reply_is_asked_for() -> None:
    grid, told = Clients(config(), tiny_data()).grid, list[int]()
    grid.on_reply = told.append
    content = pack_order(Order(initial_weights(config())), 1)
    messages = [Message(content, dst_node_id=k, message_type="train") for k in (2, 0)]
    replies = iter(grid.replies(messages))
    assert next(replies).metadata.src_node_id == 0
    assert told == [1]
    assert next(replies).metadata.src_node_id == 2
    assert next(replies, None) is None


def test_the_server_is_run_once_with_a_grid_of_the_experiments_clients() -> None:
    seen: list[CohortGrid] = []
    run_server(config(), tiny_data(), seen.append)
    (grid,) = seen
    assert isinstance(grid, InlineGrid)
    assert list(grid.get_node_ids()) == []


def test_what_the_server_raises_ends_the_run() -> None:
    def server(_: CohortGrid) -> None:
        raise FedexpError("nothing works")

    with pytest.raises(FedexpError, match="nothing works"):
        run_server(config(), tiny_data(), server)
