"""Data sets that Hugging Face's package saved."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.helpers import config
from support.tables import files, patients

from fedexp.core.options import FedexpError
from fedexp.datasets.files import Files
from fedexp.federation.dealing import federate
from fedexp.partitions.given import Given

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def _quiet() -> None:
    datasets.disable_progress_bars()


def _table(count: int) -> dict[str, list[Any]]:
    rows = patients(count)
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    columns["who"] = ["north" if k % 3 else "river" for k in range(count)]
    return columns


def _finding(folder: Path, **options: Any) -> str:
    with pytest.raises(FedexpError) as caught:
        Files(path=str(folder), **options).load()
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(folder), "DIR")


def test_a_table_with_a_split_for_tests(tmp_path: Path) -> None:
    parts = {
        name: datasets.Dataset.from_dict(_table(n)) for name, n in (("train", 60), ("test", 9))
    }
    parts["train"] = parts["train"].shuffle(seed=0)  # which keeps the rows, and adds an order
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    found = files(tmp_path / "saved", client="who")
    data = federate(config(dataset=found, partition=Given()))
    assert data.spec.owners == ("north", "river")
    assert data.spec.shape == (4,)
    assert data.partition.sizes.tolist() == [40, 20]
    assert data.client_test.sizes.tolist() == [6, 3]


def test_images_and_classes_with_names(tmp_path: Path) -> None:
    pixels = np.arange(20 * 36, dtype=np.uint8).reshape(20, 6, 6)
    labels = datasets.ClassLabel(names=["cat", "dog", "bird"])
    features = datasets.Features({"image": datasets.Image(), "label": labels})
    made = {"image": list(pixels), "label": [k % 2 for k in range(20)]}
    datasets.Dataset.from_dict(made, features=features).save_to_disk(tmp_path / "saved")
    found = Files(path=str(tmp_path / "saved"), target="label")
    assert (found.kind, found.spec.classes, found.spec.shape) == (
        "image",
        ("cat", "dog"),
        (1, 6, 6),
    )
    train, test = found.load()
    stored = {image.tobytes() for part in (train, test) for image in part.inputs}
    assert stored == {image.tobytes() for image in pixels}


def test_lists_of_numbers_are_vectors(tmp_path: Path) -> None:
    made: dict[str, list[Any]] = {
        "x": [[float(k), 1.0] for k in range(20)],
        "y": [k % 2 for k in range(20)],
    }
    datasets.Dataset.from_dict(made).save_to_disk(tmp_path / "saved")
    assert Files(path=str(tmp_path / "saved"), target="y").spec.shape == (2,)
    made["x"][3] = [1.0]
    datasets.Dataset.from_dict(made).save_to_disk(tmp_path / "uneven")
    assert _finding(tmp_path / "uneven", target="y").startswith("DIR, column x: must be lists")


def test_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = datasets.Dataset.from_dict(_table(10))
    datasets.DatasetDict(train=part, validation=part).save_to_disk(tmp_path / "three")
    assert _finding(tmp_path / "three").startswith("DIR has the splits train, validation; it must")
    part.save_to_disk(tmp_path / "one")
    for file in (tmp_path / "one").glob("*.arrow"):
        file.write_bytes(b"cut short")
    assert _finding(tmp_path / "one", target="ill").startswith("DIR cannot be read (")
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert _finding(tmp_path / "one").endswith("pip install 'datasets>=4'")
