from __future__ import annotations

from http.client import IncompleteRead
from pathlib import Path

import numpy as np
import pytest
import torchvision

from fedexp.config.composition import compose_config
from fedexp.core.options import FedexpError
from fedexp.data import federated as data
from fedexp.data.examples import Examples
from fedexp.data.federated import ensure
from fedexp.data.loading import load_dataset
from fedexp.datasets import Dataset
from fedexp.federation.dealing import federate


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    data._load.cache_clear()
    return tmp_path


def _keys(images: Examples) -> set[bytes]:
    return {image.tobytes() for image in images.images}


@pytest.mark.parametrize("cached", [False, True])
def test_mnist5k_is_stratified_and_disjoint(empty_cache: Path, cached: bool) -> None:
    if cached:
        load_dataset(Dataset())
        data._load.cache_clear()
    assert any(empty_cache.iterdir()) == cached
    train, test = load_dataset(Dataset())
    assert np.bincount(train.labels).tolist() == [400] * 10
    assert np.bincount(test.labels).tolist() == [100] * 10
    assert train.images.shape == (4_000, 1, 28, 28)
    assert (str(train.images.dtype), str(train.labels.dtype)) == ("uint8", "int64")
    assert not _keys(train) & _keys(test)
    images, labels = data._mnist5k_arrays()  # digit after digit, so every fifth of each
    assert test.images.tobytes() == images[4::5].tobytes()
    assert test.labels.tolist() == labels[4::5].tolist()


def test_mnist5k_is_the_same_from_the_cache(empty_cache: Path) -> None:
    fresh = load_dataset(Dataset())
    assert len(list((empty_cache / "fedexp").iterdir())) == 1
    data._load.cache_clear()
    cached = load_dataset(Dataset())
    for one, other in zip(fresh, cached, strict=True):
        assert one.images.tobytes() == other.images.tobytes()
        assert one.labels.tolist() == other.labels.tolist()


def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    data._load.cache_clear()
    assert len(load_dataset(Dataset())[1].labels) == 1_000


LONG = "Error downloading:\nlong story"


@pytest.mark.parametrize(
    "error", [OSError(LONG), RuntimeError(LONG), OSError(), IncompleteRead(b"", 9)], ids=repr
)
def test_mnist_without_a_network_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def download(root: str, **_: object) -> None:
        (Path(root) / "MNIST" / "raw").mkdir(parents=True)  # as torchvision does
        raise error

    monkeypatch.setattr(torchvision.datasets, "MNIST", download)
    root = tmp_path / "new" / "data"
    with pytest.raises(FedexpError) as caught:
        ensure(Dataset("mnist", str(root)))
    message = str(caught.value)
    for part in (str(root / "MNIST" / "raw"), "dataset.root=FOLDER", "dataset=mnist5k"):
        assert part in message
    assert "long story" not in message
    assert not root.exists(), "a refused command leaves nothing behind"


def test_nothing_is_downloaded_that_is_there(
    mnist_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("asked for a download")

    monkeypatch.setattr(torchvision.datasets, "MNIST", fail)
    ensure(Dataset("mnist", str(mnist_root)))


def test_clients_hold_train_and_test_images_of_the_same_labels() -> None:
    held = federate(compose_config([]))
    counts = held.partition.class_counts(held.train.labels, 10)
    tests = held.client_test.class_counts(held.test.labels, 10)
    assert counts.shape == tests.shape == (3, 10)
    assert ((counts == 0) == (tests == 0)).all()
    for client, missing in enumerate([[1, 3, 7], [2, 5, 8], [4, 6, 9]]):
        assert np.flatnonzero(counts[client] == 0).tolist() == missing
    assert tests.sum() == 1_000
