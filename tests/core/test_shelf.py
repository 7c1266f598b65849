"""Updates that wait in a file: what comes back, and how little memory it takes."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
import tempfile
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from support.helpers import same_weights, sent, weights_of

from fedexp.core import shelf as module
from fedexp.core import updates as together
from fedexp.core.options import FedexpError
from fedexp.core.shelf import Shelf, ShelvedUpdate
from fedexp.core.updates import Update, Updates
from fedexp.core.weights import Weights

MODEL: Weights = {
    "matrix": np.zeros((3, 4), np.float32),
    "half": np.zeros(5, np.float16),
    "big": np.zeros(2, ">f8"),
    "step": np.array(0),
    "none": np.zeros((0, 3), np.float32),
    "mask": np.zeros(3, bool),
}


def _like(rng: np.random.Generator) -> Weights:
    return {n: rng.integers(0, 100, a.shape).astype(a.dtype) for n, a in MODEL.items()}


@pytest.fixture
def no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no update stay in memory."""
    monkeypatch.setattr(module, "HELD", 0)


def _shelved(updates: list[Update], model: Weights) -> Updates:
    shelf = Shelf(model, len(updates))
    return Updates([shelf.take(update) for update in updates])


@pytest.mark.usefixtures("no_room")
def test_what_comes_back_is_what_was_put_there() -> None:
    rng = np.random.default_rng(0)
    updates = [
        Update(k, 2, _like(rng), k + 1, 0.5, {"more": _like(rng)}, {"n": k}) for k in range(5)
    ]
    for before, after in zip(updates, _shelved(updates, MODEL), strict=True):
        assert isinstance(after, ShelvedUpdate)
        for told in ("client", "round", "num_examples", "loss", "numbers"):
            assert getattr(after, told) == getattr(before, told)
        for was, found in (
            (before.weights, after.weights),
            (before.arrays["more"], after.arrays["more"]),
        ):
            assert same_weights(was, found)
            assert list(was) == list(found)
            assert [a.dtype for a in was.values()] == [a.dtype for a in found.values()]
            assert not any(array.flags.writeable for array in found.values())


@pytest.mark.usefixtures("no_room")
def test_some_coordinates_are_read_alone() -> None:
    weights = {"w": np.arange(12.0).reshape(3, 4).T}  # not contiguous
    (update,) = _shelved([Update(0, 1, weights, 1)], {"w": np.zeros((4, 3))})
    flat = weights["w"].ravel()
    for where in (slice(0, 1), slice(2, 7), slice(11, None), slice(5, 5), slice(0, 99)):
        assert update.entry("w", where).tolist() == flat[where].tolist()
    assert update.entry("w").tolist() == weights["w"].tolist()


@pytest.mark.usefixtures("no_room")
def test_a_part_of_an_update_and_a_changed_one() -> None:
    rng = np.random.default_rng(1)
    plain = Update(3, 1, _like(rng), 4, None, {"more": _like(rng)}, {"x": 1.0})
    (shelved,) = _shelved([plain], MODEL)
    for update in (plain, shelved):
        part = update.part(["step", "matrix"])
        assert list(part.weights) == ["matrix", "step"]
        assert part.weights["matrix"].tolist() == plain.weights["matrix"].tolist()
        assert same_weights(part.arrays["more"], plain.arrays["more"])
        changed = dataclasses.replace(update, weights=MODEL)
        assert changed.weights is MODEL
        assert changed.entry("matrix", slice(0, 2)).tolist() == [0.0, 0.0]
        assert changed.numbers == {"x": 1.0}


@pytest.mark.usefixtures("no_room")
def test_what_is_the_models_own_is_not_stored() -> None:
    model = {"kept": np.arange(1000.0), "w": np.zeros(2)}
    update = Update(0, 1, {"kept": model["kept"], "w": np.ones(2)}, 1)
    (found,) = _shelved([update], model)
    assert list(found.weights) == ["kept", "w"]
    assert np.shares_memory(found.weights["kept"], model["kept"])
    assert found.entry("kept", slice(3, 5)).tolist() == [3.0, 4.0]
    assert found.weights["w"].tolist() == [1.0, 1.0]


def test_a_small_round_stays_in_memory() -> None:
    update = sent(0, 1.0, 2.0)
    assert Shelf(weights_of(0.0, 0.0), 3).take(update) is update


def test_more_than_was_expected_goes_to_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HELD", 20)
    shelf = Shelf(weights_of(0.0, 0.0), 2)  # 8 bytes each
    taken = [shelf.take(sent(k, 1.0, 2.0, arrays={"c": weights_of(3.0, 4.0)})) for k in range(2)]
    assert [isinstance(update, ShelvedUpdate) for update in taken] == [False, True]
    assert taken[1].arrays["c"]["w"].tolist() == [3.0, 4.0]


@pytest.mark.usefixtures("no_room")
def test_the_file_has_no_name_and_ends_with_the_last_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 0
    updates = _shelved([sent(k, float(k)) for k in range(3)], weights_of(0.0))
    assert list(tmp_path.iterdir()) == []
    last = updates[2]
    del updates
    assert last.weights["w"].tolist() == [2.0]
    del last
    if before:
        assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.usefixtures("no_room")
def test_a_full_disk_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(FedexpError, match="TMPDIR") as caught:
        _shelved([sent(0, 1.0)], weights_of(0.0))
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("no_room")
def test_a_mean_takes_memory_for_a_few_models(monkeypatch: pytest.MonkeyPatch) -> None:
    size = 250_000
    model = {"w": np.zeros(size, np.float32)}  # 1 MB
    shelf = Shelf(model, 64)
    rng = np.random.default_rng(0)

    def one(client: int) -> Update:
        return shelf.take(Update(client, 1, {"w": rng.random(size, np.float32)}, 1 + client))

    tracemalloc.start()
    try:
        mean = Updates([one(client) for client in range(64)]).mean()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert mean["w"].mean() == pytest.approx(0.5, abs=0.01)
    assert peak < 8e6


@pytest.mark.parametrize(("size", "count"), [(1, 9), (2, 9), (7, 9), (1000, 9), (5, 1), (0, 3)])
def test_blocks_are_the_array_in_parts(
    size: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(together, "BLOCK", 4 * count * 10)
    rng = np.random.default_rng(size)
    arrays = [rng.normal(size=size).astype(np.float32) for _ in range(count)]
    updates = Updates([Update(k, 1, {"w": array}, 1) for k, array in enumerate(arrays)])
    blocks = list(updates.blocks("w"))
    assert all(values.shape[1] != 1 for _, values in blocks) or size == 1
    assert all(values.nbytes <= 2 * together.BLOCK for _, values in blocks)
    whole = np.stack(arrays).astype(np.float64)
    for name in ("mean", "std"):
        parts = [getattr(v.astype(np.float64), name)(axis=0) for _, v in blocks]
        assert np.concatenate(parts).tobytes() == getattr(whole, name)(axis=0).tobytes()


def test_a_round_that_the_disk_cannot_hold_is_refused_with_the_figures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**9))
    model = {"w": np.zeros(250_000, np.float32)}
    Shelf(model, 268)  # within what memory holds
    Shelf(model, 1000)
    with pytest.raises(FedexpError, match=r"need 1\.5 GB, .* has 1 GB free") as caught:
        Shelf(model, 1500)
    assert "TMPDIR" in str(caught.value)
