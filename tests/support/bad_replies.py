"""What a client can do wrong in place of a sound reply: a catalogue."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Mapping
from typing import Any

import flwr.app
import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from fedexp.flower.messages import Array

Spoil = Callable[[Message, Message], Any]
"""From the server's message and the client's sound reply to what the client returns; it may raise."""


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Rude(BaseException):
    """No Exception."""


def _raising(error: BaseException) -> Spoil:
    def spoil(asked: Message, reply: Message) -> Any:
        raise error

    return spoil


def _recursing(asked: Message, reply: Message) -> Any:
    return _recursing(asked, reply)


def _returning(make: Callable[[Message, Message], Any]) -> Spoil:
    return make


def _content(change: Callable[[RecordDict], object]) -> Spoil:
    """Change the records of a sound reply."""

    def spoil(asked: Message, reply: Message) -> Any:
        content = RecordDict(dict(reply.content))
        content["arrays"] = ArrayRecord(dict(reply.content.array_records["arrays"]))
        content["metrics"] = MetricRecord(dict(reply.content.metric_records["metrics"]))
        change(content)
        return Message(content, reply_to=asked)

    return spoil


def _without(name: str) -> Spoil:
    return _content(lambda content: content.pop(name))


def _record(name: str, record: Any) -> Spoil:
    return _content(lambda content: content.update({name: record}))


def _number(name: str, value: Any) -> Spoil:
    """Set a metric, past the checks of Flower's record."""

    def change(content: RecordDict) -> None:
        record: Any = content["metrics"]
        record.__dict__["_data"][name] = value

    return _content(change)


def _no_number(name: str) -> Spoil:
    return _content(lambda content: content.metric_records["metrics"].pop(name))


def _first(record: Mapping[str, Any]) -> str:
    """Return the name of the first matrix, or of the first array where there is none."""
    matrices = [name for name, array in record.items() if len(array.numpy().shape) == 2]
    return next(iter(matrices or record))


def _array(change: Callable[[Any], Any], record: str = "arrays") -> Spoil:
    """Change one matrix of a reply: from its numbers to other numbers, or to an ``Array``."""

    def inner(content: RecordDict) -> None:
        arrays: Any = content[record]
        name = _first(arrays)
        changed = change(arrays[name].numpy().copy())
        fresh = dict(arrays)
        fresh[name] = changed if isinstance(changed, flwr.app.Array) else Array(changed)
        content[record] = ArrayRecord(fresh)

    return _content(inner)


def _one(value: float) -> Callable[[Any], Any]:
    def change(array: Any) -> Any:
        array.flat[1] = value
        return array

    return change


def _names(change: Callable[[dict[str, Any]], None], record: str = "arrays") -> Spoil:
    def inner(content: RecordDict) -> None:
        fresh: dict[str, Any] = dict(content.array_records[record])
        change(fresh)
        content[record] = ArrayRecord(fresh)

    return _content(inner)


def _everything(value: float, record: str = "arrays") -> Spoil:
    def inner(content: RecordDict) -> None:
        fresh = {}
        for name, array in content.array_records[record].items():
            numbers = array.numpy()
            filled = np.full_like(numbers, value) if numbers.dtype.kind == "f" else numbers
            fresh[name] = Array(filled)
        content[record] = ArrayRecord(dict(fresh))

    return _content(inner)


def _npy(array: Any, *, pickled: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=pickled)
    return buffer.getvalue()


def _packed(
    change: Callable[[bytes], bytes],
    dtype: str | None = None,
    shape: tuple[int, ...] | None = None,
    stype: str = "numpy.ndarray",
) -> Spoil:
    """Change the bytes of an array or the label on them."""

    def pack(array: Any) -> Any:
        label = dtype or str(array.dtype), shape or array.shape, stype
        return flwr.app.Array(*label, change(_npy(array)))

    return _array(pack)


def _huge_header(data: bytes) -> bytes:
    head = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 1000), }"
    head += b" " * (117 - len(head)) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + data[128:]


def _npz(array: Any) -> Any:
    buffer = io.BytesIO()
    np.savez(buffer, a=array)
    data = buffer.getvalue()
    return flwr.app.Array(str(array.dtype), array.shape, "numpy.ndarray", data)


def _pickled(array: Any) -> Any:
    label = str(array.dtype), array.shape, "numpy.ndarray"
    return flwr.app.Array(*label, pickle.dumps(array))


def _object_npy(array: Any) -> Any:
    label = str(array.dtype), array.shape, "numpy.ndarray"
    return flwr.app.Array(*label, _npy(array.astype(object), pickled=True))


def _from(node: int) -> Spoil:
    def spoil(asked: Message, reply: Message) -> Any:
        reply.metadata.__dict__["_src_node_id"] = node
        return reply

    return spoil


def _bad_counter(content: RecordDict) -> None:
    """Let a counter of batches run away; models without one get an integer where floats belong."""
    fresh = dict(content.array_records["arrays"])
    counters = [name for name, array in fresh.items() if array.numpy().dtype.kind == "i"]
    name = counters[0] if counters else next(iter(fresh))
    fresh[name] = Array(np.array(2**62))
    content["arrays"] = ArrayRecord(fresh)


RAISED: dict[str, Spoil] = {
    "raises ValueError": _raising(ValueError("no")),
    "raises MemoryError": _raising(MemoryError()),
    "raises SystemExit": _raising(SystemExit(3)),
    "raises GeneratorExit": _raising(GeneratorExit()),
    "raises StopIteration": _raising(StopIteration(1)),
    "raises no Exception": _raising(Rude("rude")),
    "raises RecursionError": _recursing,
    "raises a book": _raising(OSError("line\nline\x1b[2J" + "word " * 200_000)),
    "raises no words": _raising(Unspeakable()),
}

RETURNED: dict[str, Spoil] = {
    "returns None": lambda asked, reply: None,
    "returns a string": lambda asked, reply: "done",
    "returns its content": lambda asked, reply: reply.content,
    "returns two replies": lambda asked, reply: [reply, reply],
    "returns what it was sent": lambda asked, reply: asked,
    "returns an error": lambda asked, reply: Message(Error(3, "sorry"), reply_to=asked),
    "returns an error without a reason": lambda asked, reply: Message(Error(0), reply_to=asked),
    "returns no records": lambda asked, reply: Message(RecordDict(), reply_to=asked),
    "speaks for another client": _from(2),
    "speaks for nobody": _from(10**9),
}

RECORDS: dict[str, Spoil] = {
    "no weights": _without("arrays"),
    "no metrics": _without("metrics"),
    "two records of arrays": _record("more", ArrayRecord([np.zeros(3, np.float32)])),
    "two records of metrics": _record("more", MetricRecord({"num-examples": 1})),
    "a record of words": _record("notes", ConfigRecord({"word": "x"})),
    "words for weights": _record("arrays", ConfigRecord({"word": "x"})),
    "words for metrics": _record("metrics", ConfigRecord({"num-examples": 1})),
    "an empty record of arrays": _record("arrays", ArrayRecord()),
    "an empty record of metrics": _record("metrics", MetricRecord()),
}

METRICS: dict[str, Spoil] = {
    "a metric too many": _number("extra", 1.0),
    "a list too many": _number("extra", [1.0, 2.0]),
    "no loss": _no_number("train_loss"),
    "a loss of NaN": _number("train_loss", float("nan")),
    "a loss of infinity": _number("train_loss", float("-inf")),
    "a list of losses": _number("train_loss", [0.5, 0.5]),
    "a loss that no float holds": _number("train_loss", 10**400),
    "a word for a loss": _number("train_loss", "0.5"),
    "no count": _no_number("num-examples"),
    "a count of 0": _number("num-examples", 0),
    "a count of -1": _number("num-examples", -1),
    "a count of 0.5": _number("num-examples", 0.5),
    "a count of NaN": _number("num-examples", float("nan")),
    "a count of infinity": _number("num-examples", float("inf")),
    "a count of 1e308": _number("num-examples", 1e308),
    "a count of 10**30": _number("num-examples", 10**30),
    "a count of 10**5000": _number("num-examples", 10**5000),
    "more than anybody holds": _number("num-examples", 49),
    "a count of True": _number("num-examples", True),
    "a list of counts": _number("num-examples", [6]),
    "a word for a count": _number("num-examples", "6"),
}

WEIGHTS: dict[str, Spoil] = {
    "a name is missing": _names(lambda arrays: arrays.pop(next(iter(arrays)))),
    "a name too many": _names(lambda arrays: arrays.update(more=Array(np.zeros(1)))),
    "another name": _names(lambda a: a.update({"other": a.pop(next(iter(a)))})),
    "another shape": _array(lambda array: array[:, 1:]),
    "transposed": _array(lambda array: np.atleast_2d(array).T),  # a vector becomes a column
    "a scalar": _array(lambda array: array[0, 0]),
    "float64": _array(lambda array: array.astype(np.float64)),
    "float16": _array(lambda array: array.astype(np.float16)),
    "big-endian": _array(lambda array: array.astype(">f4")),
    "int32": _array(lambda array: array.astype(np.int32)),
    "complex": _array(lambda array: array.astype(np.complex64)),
    "words": _array(lambda array: array.astype(str)),
    "objects": _array(lambda array: array.astype(object)),
    "one NaN": _array(_one(float("nan"))),
    "one infinity": _array(_one(float("-inf"))),
    "one 3e38": _array(_one(3e38)),
    "NaN everywhere": _everything(float("nan")),
    "3e38 everywhere": _everything(3e38),
    "-3e38 everywhere": _everything(-3e38),
    "a counter that ran away": _content(_bad_counter),
}

BYTES: dict[str, Spoil] = {
    "truncated": _packed(lambda data: data[:-7]),
    "no bytes": _packed(lambda data: b""),
    "random bytes": _packed(lambda data: bytes(np.random.default_rng(0).bytes(len(data)))),
    "bytes after the end": _packed(lambda data: data + b"more"),
    "a header that says too much": _packed(_huge_header),
    "a pickle": _array(_pickled),
    "a pickle in a .npy file": _array(_object_npy),
    "an archive": _array(_npz),
    "a label of another dtype": _packed(lambda data: data, dtype="float64"),
    "a label that is no dtype": _packed(lambda data: data, dtype="nonsense"),
    "a label of another shape": _packed(lambda data: data, shape=(3, 3)),
    "a label of a negative shape": _packed(lambda data: data, shape=(-1, 5)),
    "another packing": _packed(lambda data: data, stype="torch.save"),
}

ALWAYS = {**RAISED, **RETURNED, **RECORDS, **METRICS, **WEIGHTS, **BYTES}
"""Kind -> what the client does; wrong under every strategy."""


def _further(name: str) -> dict[str, Spoil]:
    return {
        f"{name}: none": _without(name),
        f"{name}: metrics": _record(name, MetricRecord({"a": 1.0})),
        f"{name}: empty": _record(name, ArrayRecord()),
        f"{name}: NaN": _array(_one(float("nan")), name),
        f"{name}: 3e38": _everything(3e38, name),
        f"{name}: another shape": _array(lambda array: array[1:], name),
        f"{name}: float64": _array(lambda array: array.astype(np.float64), name),
        f"{name}: a name too many": _names(lambda a: a.update(more=Array(np.zeros(1))), name),
        f"{name}: another name": _names(lambda a: a.update(b=a.pop(next(iter(a)))), name),
    }


def _told(name: str, *values: Any) -> dict[str, Spoil]:
    wrong = (float("nan"), float("inf"), -1.0, 1e308, [1.0], 10**400, "1", *values)
    spoilt = {f"{name}: {str(value)[:12]}": _number(name, value) for value in wrong}
    return {f"{name}: none": _no_number(name), **spoilt}


def _another_label(content: RecordDict) -> None:
    for name in ("prototypes", "counts"):
        fresh: dict[str, Any] = dict(content.array_records[name])
        fresh["10"] = fresh.pop(next(iter(fresh)))
        content[name] = ArrayRecord(fresh)


def _counts(value: Any) -> dict[str, Spoil]:
    def change(counts: dict[str, Any]) -> None:
        counts[next(iter(counts))] = Array(np.array(value))

    return {f"counts: {value!r}": _names(change, "counts")}


OF_STRATEGY: dict[str, dict[str, Spoil]] = {
    "scaffold": _further("control"),
    "fednova": _told("gradient-mass", 0.0, 1e-300, 1e10),
    "qfedavg": _told("global-loss", 1e30),
    "fedproto": {
        **_further("prototypes"),
        **{"counts: none": _without("counts"), "counts: empty": _record("counts", ArrayRecord())},
        **_counts(-1),
        **_counts(0),
        **_counts(1.5),
        **_counts(2**62),
        **_counts([1]),
        "a label that nobody has": _content(_another_label),
    },
}
"""Strategy -> kind -> what is wrong with what that strategy reads beside weights."""

NO_MISTAKE = {
    "fedproto": {
        *("an empty record of arrays", "NaN everywhere", "3e38 everywhere", "-3e38 everywhere")
    }
}
"""Strategy -> kinds of :data:`ALWAYS` that change nothing in its replies, which hold no weights."""


def _score(name: str, value: Any) -> Spoil:
    def spoil(asked: Message, reply: Message) -> Any:
        record: Any = MetricRecord(dict(reply.content.metric_records["metrics"]))
        record.__dict__["_data"][name] = value
        return Message(RecordDict({"metrics": record}), reply_to=asked)

    return spoil


def _no_score(asked: Message, reply: Message) -> Any:
    del reply.content.metric_records["metrics"]["accuracy"]
    return reply


EVALUATED: dict[str, Spoil] = {
    **RAISED,
    **RETURNED,
    "no accuracy": _no_score,
    "a metric too many": _score("extra", 1.0),
    "a loss of NaN": _score("loss", float("nan")),
    "a list of losses": _score("loss", [1.0]),
    "no count": _score("num-examples", None),
    "one more than it holds": _score("num-examples", 4),
    "a count of -1": _score("num-examples", -1),
    "a count of 0.5": _score("num-examples", 0.5),
}
"""What can be wrong with a reply to an evaluation."""
