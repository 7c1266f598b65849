"""A survey of SuperNodes that have files of their own, and what they agree on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from fedexp.backends.deployment import joined, reached
from fedexp.backends.flower_app import survey_files
from fedexp.backends.node import ANSWER, QUESTION
from fedexp.backends.node_grid import ASK, JOIN
from fedexp.backends.sending import reason, send
from fedexp.config.backend import DeploymentBackend
from fedexp.core.options import FedexpError
from fedexp.data.agreement import Agreement, Asked
from fedexp.data.surveying import survey_nodes
from fedexp.flower.messages import CONFIG
from fedexp.flower.superlink import bundle


def survey(
    backend: DeploymentBackend, num_nodes: int, asked: Asked, say: Callable[[str], object]
) -> Agreement:
    """Ask SuperNodes what they hold, and have them agree.

    Args:
        backend: Where they are.
        num_nodes: How many must be there, neither more nor fewer.
        asked: How they are to read their rows.
        say: Is told how it goes.

    Raises:
        FedexpError: If they are not there, do not answer, or do not go together; in one line.
    """
    held = backend.nodes_here(num_nodes, own_data=True)
    with (
        reached("see whether it runs, and backend.superlink, root_certificates and secret"),
        joined(backend, held, bundle(survey_files())) as grid,
    ):
        return survey_through(grid, num_nodes, asked, backend.timeout, say)


def survey_through(
    grid: Grid,
    num_nodes: int,
    asked: Asked,
    timeout: float | None,
    say: Callable[[str], object],
) -> Agreement:
    """Ask the SuperNodes that a grid of Flower's reaches; see :func:`survey`."""
    say(f"waiting for {num_nodes} SuperNodes")
    nodes = _those_there(grid, num_nodes)
    patience = timeout or ASK

    def ask(kind: str, questions: Mapping[int, str]) -> dict[int, str]:
        say(f"asking {len(questions)} SuperNodes: {_ABOUT[kind]}")
        messages = {
            node: (RecordDict({CONFIG: ConfigRecord({QUESTION: text})}), f"query.{kind}")
            for node, text in questions.items()
        }
        replies = send(grid, messages, patience, f"no answer within {patience:g} s")
        return {node: _answer(node, reply) for node, reply in replies.items()}

    return survey_nodes(ask, nodes, asked)


_ABOUT = {
    "told": "columns, and the words of categories and classes",
    "summed": "how many examples, and what they sum to",
    "squared": "squares about the mean",
}


def _those_there(grid: Grid, num_nodes: int) -> list[int]:
    """Wait for the nodes.

    Raises:
        FedexpError: If they are fewer, or more.
    """
    until, there = time.monotonic() + JOIN, list[int]()
    while len(there) < num_nodes and time.monotonic() < until:
        there = sorted(grid.get_node_ids())
        if len(there) < num_nodes:
            time.sleep(0.3)
    if len(there) != num_nodes:
        when = f"after {JOIN:g} s " if len(there) < num_nodes else ""
        raise FedexpError(
            f"{when}{len(there)} SuperNodes are there, and clients.num={num_nodes}: start or end some, "
            "or set clients.num to how many there are"
        )
    return there


def _answer(node: int, reply: Message) -> str:
    """Return the JSON in a reply.

    Raises:
        FedexpError: If there is none.
    """
    if reply.has_error():
        raise FedexpError(f"SuperNode {node}: {reason(reply)}")
    told = reply.content.get(CONFIG)
    answer = told.get(ANSWER) if isinstance(told, ConfigRecord) else None
    if not isinstance(answer, str):
        raise FedexpError(f"SuperNode {node}: it does not answer the survey")
    return answer
