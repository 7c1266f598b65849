from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

from fedexp.core.options import FedexpError
from fedexp.data import loading
from fedexp.data.examples import Examples, Spec
from fedexp.data.loading import check, load
from fedexp.datasets import Dataset


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    kept = loading._loaded.copy()
    loading._loaded.clear()
    yield
    loading._loaded.clear()
    loading._loaded.update(kept)


@dataclass(frozen=True)
class Counted(Dataset):
    """Counts how often it is read."""

    reads: ClassVar[list[int]] = []

    name: str = "counted"
    size: int = 4

    def load(self) -> tuple[Examples, Examples]:
        self.reads.append(self.size)
        train = np.arange(2 * self.size, dtype=np.float32).reshape(self.size, 2)
        return Examples(train, np.arange(self.size)), Examples(train[:1], np.arange(1))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    monkeypatch.setattr(Counted, "reads", [])
    return Counted.reads


def test_a_dataset_is_read_once(reads: list[int]) -> None:
    train, test = load(Counted())
    assert load(Counted())[0] is train
    assert load(Counted(size=4, root="data"))[1] is test
    assert reads == [4]


def test_options_make_another_dataset(reads: list[int]) -> None:
    assert [len(load(Counted(size=size))[0]) for size in (4, 5, 4)] == [4, 5, 4]
    load(Counted(root="elsewhere"))
    assert reads == [4, 5, 4]


def test_two_are_kept_and_the_one_that_was_used_last_is_one_of_them(reads: list[int]) -> None:
    for size in (1, 2, 1, 3):
        load(Counted(size=size))
    assert reads == [1, 2, 3]
    load(Counted(size=1))
    assert reads == [1, 2, 3], "1 was used after 2"
    load(Counted(size=2))
    assert reads == [1, 2, 3, 2]


def _cell(value: float) -> type[Dataset]:
    @dataclass(frozen=True)
    class Cell(Dataset):
        name: str = "cell"

        def load(self) -> tuple[Examples, Examples]:
            inputs = np.full((2, 1), value, np.float32)
            return Examples(inputs, np.arange(2)), Examples(inputs, np.arange(2))

    return Cell


def test_a_cell_that_is_run_again_is_read_again() -> None:
    found = [float(load(_cell(value)())[0].inputs[0, 0]) for value in (1.0, 2.0)]
    assert found == [1.0, 2.0]


def test_what_nothing_is_known_of_is_measured(
    reads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Counted(size=3).spec == Spec((2,), ("0", "1", "2"), 3, 1)
    assert Counted(size=3).spec.num_classes == 3
    assert reads == [3]
    images = Examples(np.zeros((4, 1, 5, 6), np.uint8), np.array([0, 1, 1, 0]))
    beyond = Examples(images.inputs[:2], np.array([0, 3]))
    # Labels that only test examples have are labels, and so is one that nothing has.
    monkeypatch.setattr(Counted, "load", lambda self: (images, beyond))
    assert Counted(size=7).spec == Spec((1, 5, 6), ("0", "1", "2", "3"), 4, 2)


GOOD = Examples(np.zeros((3, 2), np.float32), np.arange(3))


@pytest.mark.parametrize(
    "good",
    [
        GOOD,
        Examples(np.zeros((1, 3, 8, 8), np.uint8), np.zeros(1, np.int64)),
        Examples(np.array([[2**40, -1]]), np.array([7])),
    ],
    ids=["vectors", "images", "indices"],
)
def test_examples_are_of_any_kind(good: Examples) -> None:
    check(Counted(), good, GOOD)
    check(Counted(), GOOD, good)


def _inputs(*values: float) -> Any:
    return np.array(values, np.float32)[:, None]


BAD = {
    "none": (np.zeros((0, 2)), np.zeros(0, np.int64)),
    "fewer targets": (_inputs(1, 2), np.zeros(1, np.int64)),
    "more targets": (_inputs(1), np.zeros(2, np.int64)),
    "numbers with points": (_inputs(1, 2), np.array([0.0, 1.0])),
    "words": (_inputs(1, 2), np.array(["no", "yes"])),
    "truths": (_inputs(1, 2), np.array([True, False])),
    "negative": (_inputs(1, 2), np.array([-1, 0])),
    "one-hot": (_inputs(1, 2), np.eye(2, dtype=np.int64)),
    "a column": (_inputs(1, 2), np.zeros((2, 1), np.int64)),
    "small numbers": (_inputs(1, 2), np.array([0, 1], np.int32)),  # torch takes int64 alone
    "not a number": (_inputs(1, np.nan), np.arange(2)),
    "infinite": (_inputs(1, -np.inf), np.arange(2)),
}


@pytest.mark.parametrize("what", BAD)
@pytest.mark.parametrize("part", ["training", "test"])
def test_what_are_no_examples_is_refused(what: str, part: str) -> None:
    bad = Examples(*BAD[what])
    pair = (bad, GOOD) if part == "training" else (GOOD, bad)
    with pytest.raises(FedexpError, match=f"^dataset=counted: the {part} examples must ") as caught:
        check(Counted(), *pair)
    assert "\n" not in str(caught.value)


def test_what_is_refused_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = Examples(*BAD["negative"])
    monkeypatch.setattr(Counted, "load", lambda self: (bad, GOOD))
    for _ in range(2):
        with pytest.raises(FedexpError, match=r"^dataset=counted: the training"):
            load(Counted())


def test_a_subset_is_a_copy() -> None:
    part = GOOD.subset(np.array([2, 0]))
    assert (part.targets.tolist(), len(part)) == ([2, 0], 2)
    part.inputs[:] = 1
    assert not GOOD.inputs.any()
