"""Readers, on small files in the true formats; their counts and checksums are patched to fit."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import pickle
from http.client import IncompleteRead
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch
from torchvision import datasets as torchvision_datasets

from fedexp import datasets
from fedexp.core.options import FedexpError
from fedexp.data import loading
from fedexp.data.augment import augment
from fedexp.data.examples import Spec
from fedexp.data.loading import load
from fedexp.datasets.base import TorchvisionDataset
from fedexp.datasets.cifar10 import Cifar10
from fedexp.datasets.cifar100 import Cifar100
from fedexp.datasets.emnist import SPLITS, Emnist
from fedexp.datasets.fashion_mnist import FashionMnist
from fedexp.datasets.kmnist import Kmnist
from fedexp.datasets.mnist import Mnist
from fedexp.datasets.svhn import Svhn

TRAIN, TEST = 20, 10
RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (TRAIN + TEST, 28, 28), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (TRAIN + TEST, 3, 32, 32), dtype=np.uint8)
LABELS = np.arange(TRAIN + TEST) % 10


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    loading._loaded.clear()

    def small(spec: Spec) -> Spec:
        return dataclasses.replace(spec, num_train=TRAIN, num_test=TEST)

    for page in datasets.REGISTRY.pages().values():
        if issubclass(page, TorchvisionDataset) and page.facts is not None:
            monkeypatch.setattr(page, "facts", small(page.facts))
    for split, spec in SPLITS.items():
        monkeypatch.setitem(SPLITS, split, small(spec))

    def no_network(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.utils._urlretrieve", no_network)
    monkeypatch.setattr("torchvision.datasets.utils._get_redirect_url", no_network)


def _idx(array: np.ndarray) -> bytes:
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes()
    return head + array.astype(np.uint8).tobytes()


def _parts(images: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
    return [images[:TRAIN], labels[:TRAIN], images[TRAIN:], labels[TRAIN:]]


def _write_idx(folder: Path, names: tuple[str, ...], parts: list[np.ndarray]) -> None:
    folder.mkdir(parents=True)
    for name, array in zip(names, parts, strict=True):
        (folder / name).write_bytes(_idx(array))


IDX = tuple(f"{p}-{k}-ubyte" for p in ("train", "t10k") for k in ("images-idx3", "labels-idx1"))


def _assert_read(
    dataset: TorchvisionDataset, images: np.ndarray, labels: np.ndarray = LABELS
) -> None:
    dataset.ensure()
    train, test = load(dataset)
    for found, cut in ((train, slice(TRAIN)), (test, slice(TRAIN, None))):
        assert found.inputs.dtype == np.uint8
        assert found.targets.dtype == np.int64
        assert found.inputs.flags.c_contiguous
        assert found.inputs.shape[1:] == dataset.spec.shape
        assert (found.inputs == images[cut]).all()
        assert found.targets.tolist() == labels[cut].tolist()


@pytest.mark.parametrize(
    ("page", "reader"), [(Mnist, "MNIST"), (FashionMnist, "FashionMNIST"), (Kmnist, "KMNIST")]
)
def test_idx_files(tmp_path: Path, page: type[TorchvisionDataset], reader: str) -> None:
    _write_idx(tmp_path / reader / "raw", IDX, _parts(GREY, LABELS))
    _assert_read(page(root=str(tmp_path)), GREY[:, None])


def test_packed_files_are_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "KMNIST" / "raw"
    folder.mkdir(parents=True)
    sums = []
    for name, array in zip(IDX, _parts(GREY, LABELS), strict=True):
        packed = gzip.compress(_idx(array))
        (folder / f"{name}.gz").write_bytes(packed)
        sums.append((f"{name}.gz", hashlib.md5(packed).hexdigest()))
    monkeypatch.setattr(torchvision_datasets.KMNIST, "resources", sums)
    _assert_read(Kmnist(root=str(tmp_path)), GREY[:, None])


@pytest.mark.parametrize("split", ["balanced", "byclass", "bymerge", "digits", "letters", "mnist"])
def test_emnist_is_turned_upright_and_its_letters_start_at_0(tmp_path: Path, split: str) -> None:
    names = tuple(
        f"emnist-{split}-{part}-{kind}-ubyte"
        for part in ("train", "test")
        for kind in ("images-idx3", "labels-idx1")
    )
    config = Emnist(root=str(tmp_path), split=split)
    labels = np.arange(TRAIN + TEST) % config.spec.num_classes
    on_disk = labels + 1 if split == "letters" else labels
    _write_idx(tmp_path / "EMNIST" / "raw", names, _parts(GREY.transpose(0, 2, 1), on_disk))
    _assert_read(config, GREY[:, None], labels)


def _pickled(folder: Path, name: str, content: dict[str, Any]) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(pickle.dumps(content))
    return [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]


def _write_cifar(root: Path, dataset: TorchvisionDataset, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write the images as rows of 3,072 bytes, red before green before blue, and patch checksums."""
    key, names_key, folder, meta, reader, train, test = {
        "cifar10": (
            "labels",
            "label_names",
            root / "cifar-10-batches-py",
            "batches.meta",
            torchvision_datasets.CIFAR10,
            [f"data_batch_{k}" for k in range(1, 6)],
            "test_batch",
        ),
        "cifar100": (
            "fine_labels",
            "fine_label_names",
            root / "cifar-100-python",
            "meta",
            torchvision_datasets.CIFAR100,
            ["train"],
            "test",
        ),
    }[dataset.name]
    rows = COLOUR.reshape(len(COLOUR), -1)
    pieces = np.split(np.arange(TRAIN), len(train))
    lists = [
        _pickled(folder, file, {"data": rows[piece], key: LABELS[piece].tolist()})
        for file, piece in zip(train, pieces, strict=True)
    ]
    monkeypatch.setattr(reader, "train_list", lists)
    last = _pickled(folder, test, {"data": rows[TRAIN:], key: LABELS[TRAIN:].tolist()})
    monkeypatch.setattr(reader, "test_list", [last])
    _, checksum = _pickled(folder, meta, {names_key: list(dataset.spec.classes)})
    monkeypatch.setattr(reader, "meta", {"filename": meta, "key": names_key, "md5": checksum})
    return folder


@pytest.mark.parametrize("page", [Cifar10, Cifar100])
def test_cifar_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: type[TorchvisionDataset]
) -> None:
    _write_cifar(tmp_path, page(), monkeypatch)
    _assert_read(page(root=str(tmp_path)), COLOUR)


def _write_svhn(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split_list = {}
    for part, cut in (("train", slice(TRAIN)), ("test", slice(TRAIN, None))):
        path = root / f"{part}_32x32.mat"
        labels = np.where(LABELS[cut] == 0, 10, LABELS[cut]).astype(np.uint8)
        content = {"X": COLOUR[cut].transpose(2, 3, 1, 0), "y": labels[:, None]}
        scipy.io.savemat(path, content)
        checksum = hashlib.md5(path.read_bytes()).hexdigest()
        split_list[part] = ["http://localhost/", path.name, checksum]
    monkeypatch.setattr(torchvision_datasets.SVHN, "split_list", split_list)


def test_svhn_calls_the_digit_0_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write_svhn(tmp_path, monkeypatch)
    _assert_read(Svhn(root=str(tmp_path)), COLOUR)


ALL = [
    Mnist(),
    FashionMnist(),
    Kmnist(),
    Emnist(split="letters"),
    Cifar10(),
    Cifar100(),
    Svhn(),
]


@pytest.mark.parametrize("config", ALL, ids=lambda config: config.name)
def test_what_is_absent_and_cannot_be_downloaded(
    tmp_path: Path, config: TorchvisionDataset
) -> None:
    root = tmp_path / "new" / "data"
    with pytest.raises(FedexpError) as caught:
        dataclasses.replace(config, root=str(root)).ensure()
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert f"dataset={config.name} is not in dataset.root={root} and could not be" in lines[0]
    wanted = {
        "mnist": "MNIST/raw with train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images",
        "emnist": "EMNIST/raw with emnist-letters-train-images-idx3-ubyte, ",
        "cifar10": "cifar-10-batches-py with data_batch_1, ",
        "cifar100": "cifar-100-python with train, test and meta",
        "svhn": "data with train_32x32.mat and test_32x32.mat",
    }
    assert wanted.get(config.name, "MNIST/raw with train-images") in lines[1]
    assert "dataset.root=FOLDER" in lines[1]
    assert "dataset=mnist5k" in lines[2]
    assert list(tmp_path.iterdir()) == [], "a refused command leaves nothing behind"


def _one_line(dataset: TorchvisionDataset) -> str:
    with pytest.raises(FedexpError) as caught:
        load(dataset)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("damage", [b"", b"\0\0\x08\x03", b"<html>not found</html>", None])
def test_a_damaged_idx_file_is_named(tmp_path: Path, damage: bytes | None) -> None:
    folder = tmp_path / "FashionMNIST" / "raw"
    _write_idx(folder, IDX, _parts(GREY, LABELS))
    path = folder / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1] if damage is None else damage)
    assert _one_line(FashionMnist(root=str(tmp_path))) == (
        f"dataset=fashion_mnist: {path} is damaged or cut short. Delete what is damaged to download "
        "it again."
    )


@pytest.mark.parametrize("name", ["data_batch_3", "batches.meta"])
def test_a_damaged_batch_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = _write_cifar(tmp_path, Cifar10(), monkeypatch) / name
    path.write_bytes(path.read_bytes()[:-1])
    assert f"{path} is damaged" in _one_line(Cifar10(root=str(tmp_path)))


def test_a_damaged_mat_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write_svhn(tmp_path, monkeypatch)
    path = tmp_path / "test_32x32.mat"
    path.write_bytes(path.read_bytes()[:100])
    assert f"{path} is damaged" in _one_line(Svhn(root=str(tmp_path)))


def test_files_that_are_mixed_up_are_no_traceback(tmp_path: Path) -> None:
    config = Mnist(root=str(tmp_path))
    # Sound in form, but labels where images should be: no checksum tells.
    parts = _parts(GREY, LABELS)
    parts[0] = parts[1]
    _write_idx(tmp_path / "MNIST" / "raw", IDX, parts)
    said = f"{tmp_path / 'MNIST' / 'raw'} cannot be read (images and labels must have 3 axes and 1"
    assert said in _one_line(config)


def test_what_is_read_is_held_against_the_spec(tmp_path: Path) -> None:
    config = Mnist(root=str(tmp_path))
    folder = tmp_path / "MNIST" / "raw"
    few: list[np.ndarray] = [GREY[: TRAIN - 1], LABELS[: TRAIN - 1], GREY[TRAIN:], LABELS[TRAIN:]]
    _write_idx(folder, IDX, few)
    message = _one_line(config)
    assert f"{folder} holds training images of uint8 (19, 1, 28, 28)" in message
    assert "must be uint8 (20, 1, 28, 28)" in message
    parts = _parts(GREY, LABELS)
    parts[3] = parts[3] + 1
    for name, array in zip(IDX, parts, strict=True):
        (folder / name).write_bytes(_idx(array))
    assert "holds test labels from 1 to 10; they must lie between 0 and 9" in _one_line(config)
    for name, array in zip(IDX, _parts(GREY[:, :27], LABELS), strict=True):
        (folder / name).write_bytes(_idx(array))
    assert "(20, 1, 27, 28)" in _one_line(config)


def test_fashion_mnist_and_its_normalisation(
    fashion_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert FashionMnist.facts is not None
    whole = dataclasses.replace(FashionMnist.facts, num_train=60_000, num_test=10_000)
    monkeypatch.setattr(FashionMnist, "facts", whole)
    train, test = load(FashionMnist(root=str(fashion_root)))
    assert np.bincount(train.targets).tolist() == [6_000] * 10
    assert np.bincount(test.targets).tolist() == [1_000] * 10
    assert train.inputs.mean() / 255 == pytest.approx(FashionMnist.mean[0], abs=5e-5)
    assert train.inputs.std() / 255 == pytest.approx(FashionMnist.std[0], abs=5e-5)


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

    monkeypatch.setattr(torchvision_datasets, "MNIST", download)
    root = tmp_path / "new" / "data"
    with pytest.raises(FedexpError) as caught:
        Mnist(root=str(root)).ensure()
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

    monkeypatch.setattr(torchvision_datasets, "MNIST", fail)
    Mnist(root=str(mnist_root)).ensure()


@pytest.mark.parametrize("page", [Cifar10, Cifar100])
def test_only_cifars_training_images_are_varied_and_only_if_asked(page: type[Cifar10]) -> None:
    batch = torch.from_numpy(COLOUR.copy())

    def varied(dataset: Cifar10) -> torch.Tensor:
        return dataset.vary(batch, torch.Generator().manual_seed(1))

    expected = augment(batch, torch.Generator().manual_seed(1), padding=4, flip=True)
    assert torch.equal(varied(page()), expected)
    assert not torch.equal(expected, batch)
    assert varied(page(augment=False)) is batch
    # The test images, and the constants by hand: (1 - mean) / std for white.
    white = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
    prepared = page().prepare(white)[0, :, 0, 0].tolist()
    expected_white = [(1 - m) / d for m, d in zip(page.mean, page.std, strict=True)]
    assert prepared == pytest.approx(expected_white)
    assert (white == 255).all()


def test_idx_files_are_read_without_torchvision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("its import costs 150 MiB")

    monkeypatch.setattr("fedexp.data.torchvision_files._reader", refuse)
    _write_idx(tmp_path / "MNIST" / "raw", IDX, _parts(GREY, LABELS))
    _assert_read(Mnist(root=str(tmp_path)), GREY[:, None])
