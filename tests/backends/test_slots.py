"""Memory that a process and its fork have in common."""

from __future__ import annotations

import multiprocessing
from typing import Any

import numpy as np
import pytest

from fedexp.backends import slots as slots_module
from fedexp.backends.slots import COUNT, Slots

WORDS = {"a word": [1, 2.5, None]}


def _through(*answers: Any) -> list[Any]:
    """Return what comes out of slots that one process fills and empties."""
    slots, (here, there) = Slots(), multiprocessing.Pipe()
    found = []
    for answer in answers:
        slots.send(answer, there)
        found.append(slots.receive(here))
    assert not here.poll()
    return found


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=np.float32).reshape(3, 4),
        np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        np.arange(12, dtype=np.int64)[::3],
        np.array(3.5),
        np.zeros((0, 4), np.float16),
        np.array([True, False, True]),
    ],
    ids=["plain", "by columns", "every third", "one number", "empty", "masks"],
)
def test_what_is_received_is_what_was_sent(array: np.ndarray[Any, Any]) -> None:
    ((words, first, second),) = _through((WORDS, array, array + array))
    assert words == WORDS
    for found, sent in ((first, array), (second, array + array)):
        assert (found.dtype, found.shape) == (sent.dtype, sent.shape)
        np.testing.assert_array_equal(found, sent)


def test_what_was_received_stays_when_others_come() -> None:
    sent = [np.full(1000, k, np.float32) for k in range(3 * COUNT)]
    for k, found in enumerate(_through(*sent)):
        np.testing.assert_array_equal(found, sent[k])


def test_arrays_for_which_a_slot_is_too_small_go_through_the_pipe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(slots_module, "SIZE", 1024)
    sizes = (100, 10_000, 400, 300, 7)  # bytes; the second and fourth find no room
    sent = [np.arange(size, dtype=np.uint8) for size in sizes]
    (found,) = _through(sent)
    for mine, theirs in zip(found, sent, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def _send_many(slots: Slots, pipe: Any, count: int) -> None:
    for k in range(count):
        slots.send((k, np.full(1000, k)), pipe)


def test_a_fork_waits_for_a_slot_that_is_free() -> None:
    fork = multiprocessing.get_context("fork")
    slots, (here, there) = Slots(), fork.Pipe()
    process = fork.Process(target=_send_many, args=(slots, there, 5 * COUNT))
    process.start()
    process.join(0.2)
    assert process.is_alive()  # all slots are full
    for k in range(5 * COUNT):
        number, array = slots.receive(here)
        assert number == k
        assert (array == k).all()
    process.join(60)
    assert process.exitcode == 0
