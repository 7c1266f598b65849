"""What fedexp needs of Flower beside its public interface; a failure here says what moved."""

from __future__ import annotations

import importlib.metadata

import flwr.app
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from fedexp.flower import internals


def test_flower_is_the_version_that_the_corners_were_tried_with() -> None:
    assert importlib.metadata.version("flwr").startswith("1.42.")


def test_without_an_identity_no_message_can_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, None)
    with pytest.raises(RuntimeError, match="not set"):
        Message(RecordDict(), dst_node_id=3, message_type="train")
    internals.identify(7)
    message = Message(RecordDict(), dst_node_id=3, message_type="train")
    assert (message.metadata.run_id, internals.current_run()) == (7, 7)
    assert message.metadata.src_node_id == 1


def test_a_message_can_be_put_together_again() -> None:
    internals.identify(1)
    sent = Message(RecordDict({"a": ConfigRecord({"x": 1})}), dst_node_id=3, message_type="train")
    again = internals.message_from(sent.metadata, RecordDict({"b": ConfigRecord()}))
    assert again.metadata.dst_node_id == 3
    assert list(again.content) == ["b"]


def test_a_reply_can_be_given_another_sender() -> None:
    internals.identify(1)
    question = Message(RecordDict(), dst_node_id=3, message_type="train")
    reply = Message(RecordDict(), reply_to=question)
    internals.set_sender(reply, 5)
    assert reply.metadata.src_node_id == 5


def test_a_grid_has_a_run() -> None:
    assert internals.empty_run(4).run_id == 4


def test_flowers_array_still_keeps_its_bytes_in_plain_attributes() -> None:
    """Ours overrides `data` and `numpy`; Flower writes the class's name into what it sends."""
    assert flwr.app.Array.__name__ == "Array"
    assert set(flwr.app.Array.__annotations__) >= {"dtype", "shape", "stype", "data"}
