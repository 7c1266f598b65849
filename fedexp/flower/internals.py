"""The corners of Flower that are not its public interface; the only module that knows them.

``tests/flower/test_internals.py`` says what each is needed for, and what breaks when Flower moves it.
``flwr`` is capped at the minor version that they were tried with (pyproject.toml).
"""

from __future__ import annotations

from typing import Any

from flwr.app import Message, Metadata, RecordDict
from flwr.app.message import make_message
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

CLIENT_RAISED = ErrorCode.CLIENT_APP_RAISED_EXCEPTION
"""Code of an error that stands for what a client's code raised."""

OURS = ErrorCode.UNKNOWN
"""Code of an error that stands for a node that does not answer, found out by this program."""

GONE = ErrorCode.NODE_UNAVAILABLE
"""Code of an error that stands for a node that gives no sign of life, found out by the SuperLink."""

UNHEARD = frozenset({ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE})
"""Codes of errors that stand for a message, or a reply, that nobody fetched while it was good for."""


def identify(run_id: int) -> None:
    """Let this process create messages: outside Flower's runtime nobody says which run it works for."""
    TaskIdentity.task_id, TaskIdentity.run_id = 1, run_id
    TaskIdentity.node_id = SUPERLINK_NODE_ID


def current_run() -> Any:
    """Return the run that this process works for, or None if nobody has said."""
    try:
        return TaskIdentity.run_id
    except RuntimeError:
        return None


def empty_run(run_id: int) -> Run:
    """Return what a grid calls its run."""
    return Run.create_empty(run_id=run_id)


def message_from(metadata: Metadata, content: RecordDict) -> Message:
    """Put a message together again whose content travelled apart."""
    return make_message(metadata, content)


def set_sender(message: Message, node: int) -> None:
    """Say who sent a reply; Flower has no setter for it."""
    message.metadata.__dict__["_src_node_id"] = node
