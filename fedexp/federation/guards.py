"""What a reply must hold before it may enter an aggregate.

Flower's strategies check that replies agree with each other, not that they agree with the model, and
let a NaN through; one such client would silently spoil the model for all.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import ArrayRecord, Message, MetricRecord

from fedexp.core.weights import Weights
from fedexp.flower.messages import ARRAYS, METRICS, NUM_EXAMPLES, metrics_of, to_weights

NOT_FINITE = "holds NaN or infinity"
"""How the problem of weights ends that overflowed."""

Arrays = Mapping[str, npt.NDArray[Any]]


def weights_problem(weights: Arrays, reference: Arrays) -> str | None:
    """Say why weights must not be aggregated, or None if they may.

    Args:
        weights: What a client sent.
        reference: The global model that it was sent; decides names, shapes and dtypes.
    """
    if set(weights) != set(reference):
        missing, extra = (
            sorted(set(reference) - set(weights)),
            sorted(set(weights) - set(reference)),
        )
        return f"other parameters than the model's (missing {missing}, unexpected {extra})"
    for name, array in weights.items():
        expected = reference[name]
        if array.shape != expected.shape or array.dtype != expected.dtype:
            return (
                f"parameter {name} is {array.dtype}{array.shape}, "
                f"the model's is {expected.dtype}{expected.shape}"
            )
        if not np.isfinite(array).all():
            return f"parameter {name} {NOT_FINITE}"
    return None


def metrics_problem(metrics: Mapping[str, Any], weight_key: str) -> str | None:
    """Say why metrics must not be aggregated, or None if they may."""
    weight = metrics.get(weight_key)
    if not isinstance(weight, int | float) or not weight >= 0:
        return f"{weight_key} must be a number >= 0, got {weight}"
    for name, value in metrics.items():
        if not np.isfinite(value).all():
            return f"metric {name} is {value}"
    return None


def evaluation_problem(reply: Message) -> str | None:
    """Say why a reply to an evaluation must not be used, or None if it may."""
    if not isinstance(reply.content.get(METRICS), MetricRecord):
        return f"the reply holds no metrics ({METRICS})"
    return metrics_problem(metrics_of(reply), NUM_EXAMPLES)


def training_problem(reply: Message, model: Weights) -> str | None:
    """Say why a reply to training must not be aggregated, or None if it may.

    Further arrays that are named as the model's must have its shapes and dtypes.

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
    for name, further in reply.content.items():
        if isinstance(further, ArrayRecord) and name != ARRAYS:
            arrays = to_weights(further)
            problem = weights_problem(arrays, {**arrays, **_like(model, arrays)})
            if problem:
                return f"{name}: {problem}"
    return weights_problem(to_weights(record), model)


def _like(model: Weights, arrays: Weights) -> Weights:
    return {name: array for name, array in model.items() if name in arrays}


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
