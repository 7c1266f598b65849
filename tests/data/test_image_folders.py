"""Folders of images by class, and by client and class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from support.helpers import config

from fedexp.config.validation import validate
from fedexp.core.options import FedexpError
from fedexp.datasets.files import Files
from fedexp.federation.dealing import federate
from fedexp.models.lenet5 import Lenet5
from fedexp.partitions.given import Given

Pixels = npt.NDArray[np.uint8]


def _grey(value: int, height: int = 6, width: int = 5) -> Pixels:
    return np.full((height, width), value, dtype=np.uint8)


def _write(folder: Path, images: Mapping[str, Pixels]) -> Path:
    for name, pixels in images.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return folder


def _classes(prefix: str = "", count: int = 10) -> dict[str, Pixels]:
    return {
        f"{prefix}{name}/{k}.png": _grey(10 * k + place)
        for place, name in enumerate(("cat", "dog"))
        for k in range(count)
    }


def _finding(folder: Path, **options: int) -> str:
    with pytest.raises(FedexpError) as caught:
        Files(path=str(folder), **options).load()  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(folder), "DIR")


def test_classes(tmp_path: Path) -> None:
    found = Files(path=str(_write(tmp_path, _classes())))
    assert (found.kind, found.task, found.metrics) == ("image", "classification", ())
    spec = found.spec
    assert (spec.shape, spec.classes, spec.owners) == ((1, 6, 5), ("cat", "dog"), ())
    train, test = found.load()
    assert (len(train), len(test), str(train.inputs.dtype)) == (16, 4, "uint8")
    assert (train.inputs[:, 0, 0, 0] % 10 == train.targets).all()
    assert federate(config(dataset=found)).train.inputs is train.inputs


def test_clients(tmp_path: Path) -> None:
    _write(tmp_path, _classes("north/") | _classes("river/", 5))
    _write(tmp_path / "test", _classes("north/", 3))
    data = federate(config(dataset=Files(path=str(tmp_path)), partition=Given()))
    assert data.spec.owners == ("north", "river")
    assert data.partition.sizes.tolist() == [20, 10]
    assert data.client_test.sizes.tolist() == [6, 0]


def test_one_coloured_image_makes_all_coloured(tmp_path: Path) -> None:
    coloured = np.zeros((6, 5, 3), dtype=np.uint8)
    coloured[..., 2] = 255
    images = {**_classes("north/"), **_classes("river/"), "river/dog/x.png": coloured}
    found = Files(path=str(_write(tmp_path, images)))
    inputs = np.concatenate([part.inputs for part in found.load()])
    assert inputs.shape == (41, 3, 6, 5)
    assert [image[:, 0, 0].tolist() for image in inputs if image[2, 0, 0] == 255] == [[0, 0, 255]]


def test_images_of_several_sizes_are_resized_where_that_is_asked_for(tmp_path: Path) -> None:
    _write(tmp_path, {**_classes(), "dog/large.png": _grey(7, 60, 30)})
    assert _finding(tmp_path).startswith(
        "DIR/dog/large.png is 60x30 pixels, DIR/cat/0.png 6x5: dataset.side=N resizes"
    )
    found = Files(path=str(tmp_path), side=16)
    assert found.spec.shape == (1, 16, 16)
    assert validate(config(dataset=found, model=Lenet5())) == []


def test_pixels_reach_the_model_between_minus_one_and_one(tmp_path: Path) -> None:
    import torch

    found = Files(path=str(_write(tmp_path, _classes())))
    batch = torch.tensor([[[[0, 255]]]], dtype=torch.uint8)
    assert found.prepare(batch).flatten().tolist() == [-1.0, 1.0]


def test_what_is_wrong(tmp_path: Path) -> None:
    _write(tmp_path, _classes())
    (tmp_path / "dog" / ".DS_Store").touch()
    bad = tmp_path / "dog" / "notes.txt"
    bad.write_text("no image")
    assert _finding(tmp_path).startswith("DIR/dog/notes.txt is no whole image (")
    bad.write_bytes((tmp_path / "dog" / "1.png").read_bytes()[:40])
    assert _finding(tmp_path).startswith("DIR/dog/notes.txt is no whole image (")
    bad.unlink()
    deep = tmp_path / "dog" / "deep.png"
    Image.fromarray(np.zeros((6, 5), dtype=np.uint16)).save(deep)
    assert _finding(tmp_path) == (
        "DIR/dog/deep.png has pixels of type I;16: convert it to 8 bits a channel"
    )
    deep.unlink()
    (tmp_path / "bird").mkdir()
    assert _finding(tmp_path).startswith("DIR/bird holds no image")
    _write(tmp_path, {"bird/small/1.png": _grey(0)})
    assert _finding(tmp_path).startswith("DIR/cat holds no folder, and others beside it do")


def test_an_image_beside_the_folders_of_classes(tmp_path: Path) -> None:
    _write(tmp_path, _classes("north/") | {"north/stray.png": _grey(0)})
    assert _finding(tmp_path).startswith("DIR/north/stray.png is in no folder of a class")


def test_test_images_of_another_size(tmp_path: Path) -> None:
    _write(tmp_path, _classes())
    _write(tmp_path / "test", {"cat/1.png": _grey(0, 9, 9)})
    assert _finding(tmp_path).startswith(
        "DIR/test holds inputs of shape (1, 9, 9), others of (1, 6, 5)"
    )
