"""What stands in the messages of a round: whether a reply may be used, its metrics, its size."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict

from fedexp.federation.guards import metrics_problem, weights_problem
from fedexp.flower.arrays import to_weights, weights_in
from fedexp.flower.protocol import ARRAYS, CONTROL, METRICS, NUM_EXAMPLES
from fedexp.models.networks import Weights
from fedexp.tracking.run_folder import Metric


@contextmanager
def letting_go() -> Iterator[None]:
    """Run a block that reads replies, and keep nothing of them alive after it.

    Flower's views of a message (``array_records``) are reference cycles. Were garbage collected in the
    block, the view at hand would pass into a generation that is hardly ever collected, and a whole task's
    replies would stay in Ray's object store with it; the next ones then lie in memory never touched
    before, which costs a round of many small clients a tenth.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.collect(1)  # what the block left is young
        if enabled:
            gc.enable()


def metrics_of(reply: Message) -> MetricRecord:
    """Return what a client reports beside its weights."""
    record = reply.content[METRICS]
    assert isinstance(record, MetricRecord)
    return record


def evaluation_problem(reply: Message) -> str | None:
    """Say why a reply to an evaluation must not be used, or None if it may."""
    if not isinstance(reply.content.get(METRICS), MetricRecord):
        return f"the reply holds no metrics ({METRICS})"
    return metrics_problem(metrics_of(reply), NUM_EXAMPLES)


def training_problem(reply: Message, model: Weights) -> str | None:
    """Say why a reply to training must not be aggregated, or None if it may.

    Args:
        reply: What a client sent.
        model: The global model; decides names, shapes and dtypes.
    """
    problem = evaluation_problem(reply)
    if problem:
        return problem
    record = reply.content.get(ARRAYS)
    if not isinstance(record, ArrayRecord):
        return f"the reply holds no weights ({ARRAYS})"
    if not metrics_of(reply)[NUM_EXAMPLES]:
        return f"{NUM_EXAMPLES} must be >= 1 after training"
    if CONTROL in reply.content:
        weights = weights_in(reply.content, CONTROL)
        # Control variates are of parameters alone; a model's buffers have none.
        expected = {name: array for name, array in model.items() if name in weights}
        problem = weights_problem(weights, expected)
        if problem:
            return f"{CONTROL}: {problem}"
    return weights_problem(to_weights(record), model)


def evaluation_rows(server_round: int, model: str, replies: Iterable[Message]) -> Iterator[Metric]:
    """Yield what each client measured on its own share of the test images."""
    for reply in replies:
        client = reply.metadata.src_node_id
        for name, value in metrics_of(reply).items():
            if isinstance(value, float):
                yield Metric(server_round, model, "client_test", "all", client, name, value)


def num_bytes(messages: Iterable[Message]) -> int:
    """Return the bytes of the weights in messages, without names, metrics and packing."""
    sizes: dict[int, int] = {}
    total = 0
    for message in messages:
        if not message.has_error():
            content = message.content
            if id(content) not in sizes:  # the messages of a round mostly share theirs
                sizes[id(content)] = _content_bytes(content)
            total += sizes[id(content)]
    return total


def _content_bytes(content: RecordDict) -> int:
    return sum(
        math.prod(array.shape) * np.dtype(array.dtype).itemsize
        for record in content.values()
        if isinstance(record, ArrayRecord)
        for array in record.values()
    )
