from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedexp.data.examples import Examples
from fedexp.datasets.mnist5k import Mnist5k, _arrays


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def _keys(images: Examples) -> set[bytes]:
    return {image.tobytes() for image in images.inputs}


@pytest.mark.parametrize("cached", [False, True])
def test_mnist5k_is_stratified_and_disjoint(empty_cache: Path, cached: bool) -> None:
    if cached:
        Mnist5k().load()
    assert any(empty_cache.iterdir()) == cached
    train, test = Mnist5k().load()
    assert np.bincount(train.targets).tolist() == [400] * 10
    assert np.bincount(test.targets).tolist() == [100] * 10
    assert train.inputs.shape == (4_000, 1, 28, 28)
    assert (str(train.inputs.dtype), str(train.targets.dtype)) == ("uint8", "int64")
    assert not _keys(train) & _keys(test)
    images, labels = _arrays()  # digit after digit, so every fifth of each
    assert test.inputs.tobytes() == images[4::5].tobytes()
    assert test.targets.tolist() == labels[4::5].tolist()


def test_mnist5k_is_the_same_from_the_cache(empty_cache: Path) -> None:
    fresh = Mnist5k().load()
    assert len(list((empty_cache / "fedexp").iterdir())) == 1
    cached = Mnist5k().load()
    for one, other in zip(fresh, cached, strict=True):
        assert one.inputs.tobytes() == other.inputs.tobytes()
        assert one.targets.tolist() == other.targets.tolist()


def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(Mnist5k().load()[1]) == 1_000
