"""Orders, updates and state as Flower's records: what goes in comes out."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import flwr.app
import numpy as np
import numpy.typing as npt
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.app.message import Array as FlowersArray
from support.helpers import same_weights, unpack_update, weights_of

from fedexp.core.roles import Order
from fedexp.core.weights import Weights
from fedexp.flower.grid import CohortView
from fedexp.flower.messages import (
    Array,
    Reply,
    num_bytes,
    own,
    pack_order,
    pack_reply,
    pack_state,
    to_record,
    to_weights,
    unpack_order,
    unpack_state,
)

ARRAYS = {
    "vector": np.array([1.5, -2.0], dtype=np.float32),
    "matrix": np.arange(6, dtype=np.float64).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
    "strided": np.arange(12, dtype=np.float32).reshape(3, 4)[:, ::2],
    "scalar": np.array(7, dtype=np.int64),
    "empty": np.zeros((0, 3), dtype=np.float32),
    "bool": np.array([True, False]),
    "big-endian": np.array([1.0, 2.0], dtype=">f4"),
}


@pytest.fixture(autouse=True)
def _messages_can_be_made() -> None:
    CohortView([])  # sets who this process is


# --- arrays ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS.keys())
def test_weights_survive_a_message_bit_for_bit(array: npt.NDArray[Any]) -> None:
    (found,) = to_weights(to_record({"w": array})).values()
    assert found.dtype == array.dtype
    assert found.shape == array.shape
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS.keys())
def test_flower_reads_the_bytes_of_ours(array: npt.NDArray[Any]) -> None:
    mine = Array(array)
    theirs = FlowersArray(mine.dtype, mine.shape, mine.stype, mine.data)
    np.testing.assert_array_equal(theirs.numpy(), array)
    assert (theirs.numpy().dtype, theirs.numpy().shape) == (array.dtype, array.shape)
    made_by_flower = FlowersArray(np.ascontiguousarray(array).reshape(array.shape))
    assert (mine.dtype, tuple(mine.shape)) == (made_by_flower.dtype, tuple(made_by_flower.shape))
    assert mine.stype == made_by_flower.stype


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS.keys())
def test_ours_go_to_other_processes(array: npt.NDArray[Any]) -> None:
    record = pickle.loads(pickle.dumps(to_record({"w": array})))
    assert isinstance(record["w"], Array)
    found = to_weights(record)["w"]
    assert found.dtype == array.dtype.newbyteorder("=")  # NumPy turns bytes round on the way
    assert found.shape == array.shape
    np.testing.assert_array_equal(found, array)
    assert not found.flags.writeable


def test_a_record_of_ours_passes_for_flowers() -> None:
    record = to_record(weights_of(1.0, 2.0))
    assert isinstance(record["w"], flwr.app.Array)
    inflated = ArrayRecord.inflate(
        record.deflate(), children={a.object_id: a for a in record.values()}
    )
    assert same_weights(to_weights(inflated), weights_of(1.0, 2.0))


def test_weights_keep_the_models_order() -> None:
    weights = {name: np.zeros(1, dtype=np.float32) for name in ("b", "a", "10", "9")}
    assert list(to_weights(to_record(weights))) == ["b", "a", "10", "9"]
    assert list(to_weights(ArrayRecord({"z": flwr.app.Array(np.ones(2))}))) == ["z"]


def test_arrays_are_not_copied_and_cannot_be_written_to() -> None:
    weights = weights_of(1.0)
    found = to_weights(to_record(weights))["w"]
    assert np.shares_memory(found, weights["w"])
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 2.0
    weights["w"][0] = 3.0  # the owner still may
    assert Array(weights["w"], writable=True).numpy().flags.writeable


def test_a_deep_copy_is_the_same_array() -> None:
    array = Array(np.ones(3))
    assert copy.deepcopy(array) is array


def test_what_is_kept_is_a_copy() -> None:
    weights = weights_of(1.0)
    kept = own(to_record(weights))
    weights["w"][0] = 77.0
    assert to_weights(kept)["w"].tolist() == [1.0]
    assert isinstance(kept["w"], Array)


# --- orders ---------------------------------------------------------------------------------------


def _same_arrays(found: Any, wanted: Any) -> bool:
    return list(found) == list(wanted) and all(
        same_weights(found[name], wanted[name]) for name in wanted
    )


@pytest.mark.parametrize(
    "order",
    [
        Order(weights_of(1.0, 2.0)),
        Order({"a": np.array(3), "b": np.ones((2, 2), np.float32)}),
        Order(weights_of(1.0), {"control": weights_of(3.0), "mask": {"m": np.array([True])}}),
        Order(weights_of(1.0), {}, {"rate": 0.5, "count": 3, "word": "cosine", "flag": True}),
        Order(weights_of(1.0), examples_of=(4, 0, 2)),
        Order(weights_of(1.0), {"empty": {}}, {"word": ""}, (0,)),
    ],
    ids=["weights", "dtypes", "arrays", "numbers", "examples", "all"],
)
def test_orders_come_out_as_they_went_in(order: Order) -> None:
    content = pickle.loads(pickle.dumps(pack_order(order, 17)))
    found, server_round = unpack_order(content)
    assert server_round == 17
    assert same_weights(found.weights, order.weights)
    assert _same_arrays(found.arrays, order.arrays)
    assert found.numbers == order.numbers
    assert {k: type(v) for k, v in found.numbers.items()} == {
        k: type(v) for k, v in order.numbers.items()
    }
    assert found.examples_of == order.examples_of


def test_an_orders_message_in_flowers_words() -> None:
    order = Order(weights_of(1.0), {"control": weights_of(3.0)}, {"rate": 0.5}, (1, 3))
    content = pack_order(order, 2)
    assert list(content) == ["arrays", "config", "control"]
    assert content["config"] == ConfigRecord(
        {"server-round": 2, "rate": 0.5, "partition-ids": [1, 3]}
    )


@pytest.mark.parametrize("name", ["arrays", "config", "metrics"])
def test_an_order_cannot_take_the_place_of_the_model(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        pack_order(Order(weights_of(1.0), {name: weights_of(2.0)}), 1)


@pytest.mark.parametrize("name", ["server-round", "partition-ids"])
def test_an_order_cannot_speak_of_another_round_or_of_others_examples(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        pack_order(Order(weights_of(1.0), {}, {name: 7}), 1)


# --- replies and updates --------------------------------------------------------------------------


def _through(reply: Reply, client: int = 4, server_round: int = 9) -> Message:
    asked = Message(RecordDict(), dst_node_id=client, message_type="train")
    content = pickle.loads(pickle.dumps(pack_reply(reply)))
    return Message(content, reply_to=asked)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(3, weights_of(1.0), 0.25),
        Reply(3, weights_of(1.0)),
        Reply(1, weights_of(1.0), 0.5, {"control": weights_of(3.0)}, {"norm": 1.5, "count": 2}),
    ],
    ids=["trained", "untrained", "all"],
)
def test_replies_come_out_as_updates(reply: Reply) -> None:
    update = unpack_update(_through(reply), 9)
    assert reply.weights is not None
    assert same_weights(update.weights, reply.weights)
    assert (update.client, update.round) == (4, 9)
    assert (update.num_examples, update.loss) == (reply.num_examples, reply.loss)
    assert _same_arrays(update.arrays, reply.arrays)
    assert update.numbers == reply.numbers
    assert {k: type(v) for k, v in update.numbers.items()} == {
        k: type(v) for k, v in reply.numbers.items()
    }


def test_what_an_update_holds_is_read_only() -> None:
    arrays = {"control": weights_of(3.0)}
    update = unpack_update(_through(Reply(3, weights_of(1.0), 0.25, arrays)), 9)
    for array in (update.weights["w"], update.arrays["control"]["w"]):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 2.0


def test_replies_in_flowers_words() -> None:
    trained = pack_reply(Reply(3, weights_of(1.0), 0.25, {"control": weights_of(2.0)}, {"n": 1}))
    assert trained["metrics"] == MetricRecord({"num-examples": 3, "n": 1, "train_loss": 0.25})
    assert sorted(trained) == ["arrays", "control", "metrics"]
    tested = pack_reply(Reply(5, numbers={"loss": 0.5, "accuracy": 1.0}))
    assert dict(tested) == {
        "metrics": MetricRecord({"num-examples": 5, "loss": 0.5, "accuracy": 1.0})
    }


def test_what_a_client_is_sent_and_what_it_kept_is_read_only_too() -> None:
    order, _ = unpack_order(pack_order(Order(weights_of(1.0), {"control": weights_of(3.0)}), 1))
    records = RecordDict()
    pack_state({"own": weights_of(2.0)}, records)
    own_weights = unpack_state(records)["own"]
    assert isinstance(own_weights, dict)
    for weights in (order.weights, order.arrays["control"], own_weights):
        with pytest.raises(ValueError, match="read-only"):
            weights["w"] += 1


# --- what clients keep ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"control": weights_of(1.0, 2.0)},
        {"one": {"a": np.array(3), "b": np.zeros((0, 2))}, "two": weights_of(1.0), "none": {}},
        {"calls": 3, "norm": 0.5, "word": "warm", "flag": True},
        {"config": 7, "metrics": "a", "arrays": weights_of(1.0)},
        {"control": weights_of(1.0), "calls": 3},
    ],
    ids=["nothing", "arrays", "many", "plain", "fedexps own names", "both"],
)
def test_state_comes_out_as_it_went_in(state: dict[str, Any]) -> None:
    records = RecordDict({"old": ConfigRecord({"gone": 1}), "older": to_record(weights_of(9.0))})
    pack_state(state, records)
    found: dict[str, Any] = dict(unpack_state(pickle.loads(pickle.dumps(records))))
    assert set(found) == set(state)
    for name, value in state.items():
        if isinstance(value, dict):
            assert same_weights(found[name], value)
        else:
            assert found[name] == value
            assert type(found[name]) is type(value)


def test_forgetting_everything_leaves_nothing() -> None:
    records = RecordDict()
    pack_state({"control": weights_of(1.0), "calls": 3}, records)
    assert len(records) == 2
    pack_state({}, records)
    assert len(records) == 0


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, "NoneType"),
        ([1, 2], "list"),
        (np.zeros(2), "ndarray"),
        ({"w": [1.0]}, "dict"),
        ({"w": {"inner": np.zeros(1)}}, "dict"),
        (b"bytes", "bytes"),
    ],
    ids=lambda value: str(type(value).__name__),
)
def test_other_things_cannot_be_kept(value: Any, kind: str) -> None:
    with pytest.raises(TypeError, match=rf"^job\.state\['thing'\] must be .*, got {kind}$"):
        pack_state({"thing": value}, RecordDict())


def test_of_numpys_numbers_those_are_kept_that_are_pythons_too() -> None:
    records = RecordDict()
    pack_state({"thing": np.float64(1.5)}, records)
    assert unpack_state(records) == {"thing": 1.5}
    for number in (np.float32(1.5), np.int64(3)):
        with pytest.raises(TypeError, match=r"job\.state\['thing'\]"):
            pack_state({"thing": number}, records)  # type: ignore[dict-item]


# --- traffic --------------------------------------------------------------------------------------


def test_bytes_of_all_arrays_are_counted_for_every_message() -> None:
    weights: Weights = {"w": np.zeros((2, 3), np.float32), "n": np.array(1)}  # 24 + 8 bytes
    order = pack_order(Order(weights, {"control": weights_of(1.0)}, {"rate": 0.5}), 1)  # 4 more
    other = pack_order(Order(weights_of(1.0, 2.0)), 1)  # 8
    messages = [
        Message(content, dst_node_id=client, message_type="train")
        for client, content in enumerate([order, order, other])
    ]
    assert num_bytes(messages) == 2 * 36 + 8
    assert num_bytes([]) == 0


def test_errors_weigh_nothing() -> None:
    asked = Message(RecordDict(), dst_node_id=1, message_type="train")
    failed = Message(Error(1, "no"), reply_to=asked)
    answered = Message(pack_reply(Reply(1, weights_of(1.0))), reply_to=asked)
    assert num_bytes([failed, answered]) == 4
