"""Orders, updates and state as Flower's records, and back.

Flower's ``Array`` packs every array into bytes at once and parses their header, as Python code, whenever
the numbers are asked for: 50 us an array, which a round of many small clients spends thousands of times.
Ours stays an array until Flower asks for bytes.
"""

from __future__ import annotations

import copyreg
import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import flwr.app
import numpy as np
import numpy.typing as npt
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from fedexp.core.roles import Number, Order, State
from fedexp.core.weights import Weights
from fedexp.flower.internals import CLIENT_RAISED

ARRAYS, CONFIG, METRICS = "arrays", "config", "metrics"
"""Records of a message: weights, what the server says beside them, what a client reports."""

NUM_EXAMPLES, TRAIN_LOSS = "num-examples", "train_loss"
"""Metrics of a reply to training: examples the client trained on, mean loss of its last epoch."""

SERVER_ROUND, EXAMPLES_OF = "server-round", "partition-ids"
"""What the server says: the round; and whose examples are trained on, where not the client's own."""

PARTITION_ID, NUM_PARTITIONS = "partition-id", "num-partitions"
"""Which partition a node holds: in its configuration, and in its answer to a query."""

_OWN = (CONFIG, METRICS, ARRAYS)
dtype_name = lru_cache(str)  # NumPy writes the name of a dtype in Python, 5 us each time


class Array(flwr.app.Array):
    """An array that stays one until Flower asks for bytes.

    The name is Flower's because Flower writes it into what it sends.
    """

    _array: npt.NDArray[Any]

    def __init__(self, array: npt.NDArray[Any], *, writable: bool = False) -> None:
        if type(array) is not np.ndarray:  # a subclass may bring ideas of its own
            array = np.asarray(array)
        if not array.flags.c_contiguous:
            array = np.ascontiguousarray(array)
        array = array.view()
        array.flags.writeable = writable
        self.__dict__.update(
            dtype=dtype_name(array.dtype), shape=array.shape, stype="numpy.ndarray", _array=array
        )

    @property
    def data(self) -> bytes:  # type: ignore[override]  # a plain attribute of Flower's
        """The bytes of a ``.npy`` file."""
        buffer = io.BytesIO()
        np.save(buffer, self._array, allow_pickle=False)
        return buffer.getvalue()

    def numpy(self) -> npt.NDArray[Any]:
        """Return the array itself, which is read-only unless it was made writable."""
        return self._array

    def __deepcopy__(self, memo: object) -> Array:
        return self


copyreg.pickle(Array, lambda array: (Array, (array.numpy(),)))


@dataclass(frozen=True, eq=False)
class Reply:
    """What a client answers.

    Attributes:
        num_examples: Examples it trained or was tested on.
        weights: What it trained; None after a test.
        loss: Of its training; None if there was none.
        arrays: Further arrays by name.
        numbers: Numbers by name; after a test, its metrics.
    """

    num_examples: int
    weights: Weights | None = None
    loss: float | None = None
    arrays: Mapping[str, Weights] = field(default_factory=dict)
    numbers: Mapping[str, Number] = field(default_factory=dict)


def to_record(weights: Mapping[str, npt.NDArray[Any]]) -> ArrayRecord:
    """Pack weights for a message, without a copy: do not write to them any more."""
    record = ArrayRecord()
    for name, array in weights.items():
        record[name] = Array(array)
    return record


def to_weights(record: ArrayRecord) -> Weights:
    """Unpack the weights of a message; do not write to them."""
    return {name: array.numpy() for name, array in record.items()}


def weights_in(content: RecordDict, key: str) -> Weights:
    """Unpack the weights that a message holds under a key; do not write to them."""
    record = content[key]  # `array_records` would build a dictionary first
    assert isinstance(record, ArrayRecord)
    return to_weights(record)


def own(record: ArrayRecord) -> ArrayRecord:
    """Copy a record that is to be kept: on Ray the numbers of a reply lie in the object store."""
    return to_record({name: array.numpy().copy() for name, array in record.items()})


def pack_order(order: Order, server_round: int) -> RecordDict:
    """Return the content of the server's message to a client.

    Raises:
        ValueError: If a name in the order is fedexp's own.
    """
    taken = {*order.arrays} & {*_OWN} | {*order.numbers} & {SERVER_ROUND, EXAMPLES_OF}
    for name in taken:
        raise ValueError(f"Order: the name {name!r} is fedexp's own; choose another")
    told = ConfigRecord({SERVER_ROUND: server_round, **order.numbers})
    if order.examples_of:
        told[EXAMPLES_OF] = list(order.examples_of)
    content = RecordDict({ARRAYS: to_record(order.weights), CONFIG: told})
    for name, arrays in order.arrays.items():
        content[name] = to_record(arrays)
    return content


def unpack_order(content: RecordDict) -> tuple[Order, int]:
    """Return what the server sent, and the round; arrays are not to be written to."""
    told = content[CONFIG]
    assert isinstance(told, ConfigRecord)
    numbers: dict[str, Any] = dict(told.items())
    server_round = int(numbers.pop(SERVER_ROUND))
    whose = tuple(int(client) for client in numbers.pop(EXAMPLES_OF, ()))
    order = Order(weights_in(content, ARRAYS), _further(content), numbers, whose)
    return order, server_round


def pack_reply(reply: Reply) -> RecordDict:
    """Return the content of a client's message to the server."""
    metrics: dict[str, Any] = {NUM_EXAMPLES: reply.num_examples, **reply.numbers}
    if reply.loss is not None:
        metrics[TRAIN_LOSS] = reply.loss
    content = RecordDict({METRICS: MetricRecord(metrics)})
    for name, arrays in reply.arrays.items():
        content[name] = to_record(arrays)
    if reply.weights is not None:
        content[ARRAYS] = to_record(reply.weights)
    return content


def _further(content: RecordDict) -> dict[str, Weights]:
    return {
        name: to_weights(record)
        for name, record in content.items()
        if isinstance(record, ArrayRecord) and name not in _OWN
    }


def unpack_state(records: RecordDict) -> State:
    """Return what a client kept: names of arrays, numbers and words."""
    state: dict[str, Any] = {}
    for name, record in records.items():
        if isinstance(record, ArrayRecord):
            state[name] = to_weights(record)
        elif isinstance(record, ConfigRecord):
            state |= dict(record.items())
    return state


def pack_state(state: State, records: RecordDict) -> None:
    """Write into Flower's context what a client keeps.

    Raises:
        TypeError: If it is neither named arrays, nor a number, nor a word.
    """
    records.clear()
    plain: dict[str, Any] = {}
    for name, value in state.items():
        if name != CONFIG and _are_arrays(value):
            records[name] = to_record(value)  # type: ignore[arg-type]
        elif isinstance(value, float | str) or _is_small(value):
            plain[name] = value
        else:
            raise TypeError(
                f"job.state[{name!r}] must be a dictionary of arrays, a number (64 bits) or a word, got "
                f"{type(value).__name__}"
            )
    if plain:
        records[CONFIG] = ConfigRecord(plain)


def _are_arrays(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(array, np.ndarray) and array.dtype.kind in "biuf" for array in value.values()
    )


def _is_small(value: Any) -> bool:
    return isinstance(value, int) and -(2**63) <= value < 2**63  # what messages can hold


def error_reply(message: Message, reason: str) -> Message:
    """Return the reply of a client that has none."""
    return Message(Error(CLIENT_RAISED, reason), reply_to=message)


def num_bytes(messages: Iterable[Message]) -> int:
    """Return the bytes of the weights in messages, without names, metrics and packing."""
    sizes: dict[int, int] = {}
    total = 0
    for message in messages:
        if not message.has_error():
            content = message.content
            if id(content) not in sizes:  # the messages of a round mostly share theirs
                sizes[id(content)] = content_bytes(content)
            total += sizes[id(content)]
    return total


def content_bytes(content: RecordDict) -> int:
    """Return the bytes of the arrays in a message's content, or in what a client keeps."""
    return sum(
        math.prod(array.shape) * np.dtype(array.dtype).itemsize
        for record in content.values()
        if isinstance(record, ArrayRecord)
        for array in record.values()
    )
