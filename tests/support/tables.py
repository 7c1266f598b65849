"""Tables of rows that tests write to files."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fedexp.datasets.files import Files

Rows = list[dict[str, object]]


def write_csv(path: Path, rows: Sequence[Mapping[str, object]], separator: str = ",") -> Path:
    """Write rows under a header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=separator, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def patients(count: int, seed: int = 0, shift: float = 0.0) -> Rows:
    """Return rows of two numbers, a category, and a target of two classes that depends on them."""
    rng = np.random.default_rng(seed)
    rows: Rows = []
    for _ in range(count):
        age, crp = round(rng.normal(60 + shift, 10), 1), round(float(np.exp(rng.normal())), 2)
        ill = rng.random() < 1 / (1 + np.exp(-(age - 60) / 5))
        sex = str(rng.choice(["female", "male"]))
        rows.append({"age": age, "crp": crp, "sex": sex, "ill": "yes" if ill else "no"})
    return rows


def hospitals(folder: Path, sizes: Mapping[str, int], **changes: Rows) -> Path:
    """Write a file for every hospital: so many patients, or the rows given."""
    for number, (name, size) in enumerate(sizes.items()):
        rows = changes.get(name) or patients(size, number, 3.0 * number)
        write_csv(folder / f"{name}.csv", rows)
    return folder


def files(path: Path, **options: object) -> Files:
    """Return the data set of files whose target is ``ill``."""
    return Files(**{"path": str(path), "target": "ill", **options})  # type: ignore[arg-type]
