"""Bad files of one's own: one line says which, where, and what would be right, before anything starts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.helpers import config
from support.tables import files, hospitals, patients, write_csv

from fedexp.config.composition import compose_config
from fedexp.config.validation import validate
from fedexp.core.options import ConfigError, FedexpError
from fedexp.datasets.files import Files
from fedexp.federation.dealing import federate
from fedexp.partitions.given import Given

SIZES = {"north": 20, "river": 20, "valley": 20}


def _mistakes(folder: Path | None, **options: object) -> list[str]:
    given = {"path": None if folder is None else str(folder), "target": "ill", **options}
    try:
        return validate(config(dataset=Files(**given), partition=Given()))  # type: ignore[arg-type]
    except FedexpError as error:
        return str(error).splitlines()


def _without_target(folder: Path) -> None:
    rows = patients(20)
    rows[6]["ill"] = ""
    write_csv(folder / "river.csv", rows)


def _without_column(folder: Path) -> None:
    rows = [{k: v for k, v in row.items() if k != "crp"} for row in patients(20)]
    write_csv(folder / "river.csv", rows)


def _text_in_numbers(folder: Path) -> None:
    rows = patients(20)
    rows[2]["crp"] = "3,5"
    write_csv(folder / "river.csv", rows)


def _spreadsheet(folder: Path) -> None:
    (folder / "river.xlsx").write_bytes(b"PK")


def _test_of_a_stranger(folder: Path) -> None:
    hospitals(folder / "test", {"north": 5, "lake": 5})


def _test_of_a_new_class(folder: Path) -> None:
    rows = patients(5)
    rows[4]["ill"] = "perhaps"
    hospitals(folder / "test", {"north": 5}, north=rows)


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (
            _without_target,
            "DIR/river.csv, line 8, column ill: the target is missing; fill it in, or take the row away",
        ),
        (
            _without_column,
            "DIR/river.csv has no column crp, which DIR/north.csv has: add it (its cells may be empty), "
            "or leave it out: dataset.ignore=[crp]",
        ),
        (
            _text_in_numbers,
            "DIR/river.csv, line 4, column crp: '3,5' is no number, and column crp holds numbers "
            "elsewhere: correct it or empty the cell; if its values are categories, "
            "dataset.categories=[crp]",
        ),
        (
            _spreadsheet,
            "DIR/river.xlsx is none of .csv, .parquet, .npz: convert it, or take it away",
        ),
        (
            _test_of_a_stranger,
            "DIR/test/lake.csv: lake has test rows and no training rows; add some, or take its test "
            "rows away",
        ),
        (
            _test_of_a_new_class,
            "DIR/test/north.csv, line 6, column ill: not one of the classes no, yes",
        ),
        (
            lambda folder: (folder / "river.csv").write_text(""),
            "DIR/river.csv is empty: its first line must name the columns",
        ),
        (
            lambda folder: np.savez(folder / "river.npz", ill=np.zeros(3)),
            "DIR holds river twice, in different formats: take one away",
        ),
        (
            lambda folder: (
                (folder / "river.csv").chmod(0) or (folder / "river.csv").rename(folder / "a")
            ),
            "DIR/a is none of .csv, .parquet, .npz: convert it, or take it away",
        ),
    ],
)
def test_bad_folders(tmp_path: Path, damage: Callable[[Path], object], line: str) -> None:
    hospitals(tmp_path, SIZES)
    damage(tmp_path)
    (found,) = _mistakes(tmp_path)
    assert found.replace(str(tmp_path), "DIR") == line


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"path": "DIR/nowhere"}, "dataset.path=DIR/nowhere is not there: name a file"),
        ({"path": None}, "dataset=files needs dataset.path=PATH"),
        ({"path": "DIR/empty"}, "DIR/empty holds no file that ends in .csv, .parquet, .npz"),
        ({"target": "sick"}, "DIR/north.csv has no column sick: name the one that is to be"),
        ({"client": "who"}, "DIR/north.csv has no column who: name the one that says whose"),
        ({"categories": ["nope"]}, "dataset.categories: there is no column nope"),
        ({"ignore": ["age", "crp", "sex"]}, "DIR/north.csv has no column beside target and client"),
        ({"test_fraction": 0.01}, "dataset.test_fraction=0.01 is less than one row of every"),
        ({"path": "DIR/north.csv"}, "partition=given: dataset=files does not say whose"),
        ({"test_fraction": float("inf")}, "dataset.test_fraction must be a finite number, got inf"),
        ({"split_seed": -1}, "dataset.split_seed must be >= 0, got -1"),
        ({"predict": "classes"}, "dataset.predict must be one of auto, classification, regression"),
        ({"predict": "regression"}, "DIR/north.csv, line 2, column ill: a word as the target"),
    ],
)
def test_bad_options(tmp_path: Path, options: dict[str, object], line: str) -> None:
    folder = tmp_path / "data"
    hospitals(folder, SIZES)
    if options.get("path"):
        options = {"path": str(options["path"]).replace("DIR", str(folder))}
        if "empty" in str(options["path"]):
            (folder / "empty").mkdir()
    (found,) = _mistakes(folder, **options)
    assert found.replace(str(folder), "DIR").startswith(line)


def test_mistakes_of_composed_options_are_configuration_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        compose_config(
            ["dataset=files", f"dataset.path={tmp_path}", "partition=given", "clients=nope"]
        )
    assert len(caught.value.errors) == 2


def test_test_data_cannot_be_given_and_split_off(tmp_path: Path) -> None:
    hospitals(tmp_path, SIZES)
    hospitals(tmp_path / "test", SIZES)
    (line,) = _mistakes(tmp_path, test_fraction=0.3)
    assert line.startswith("dataset.test_fraction=0.3: ")


def test_a_class_that_one_hospital_alone_has(tmp_path: Path) -> None:
    rows = patients(20)
    for row in rows[:5]:
        row["ill"] = "very"
    data = federate(
        config(dataset=files(hospitals(tmp_path, SIZES, river=rows)), partition=Given())
    )
    assert data.spec.classes == ("no", "very", "yes")
    counts = data.partition.class_counts(data.train.targets, 3)
    assert counts[:, 1].tolist() == [0, 4, 0]


def test_a_hospital_of_four_rows_trains_and_is_not_tested(tmp_path: Path) -> None:
    found = files(hospitals(tmp_path, {**SIZES, "valley": 4}))
    data = federate(config(dataset=found, partition=Given()))
    assert data.partition.sizes.tolist() == [16, 16, 4]
    assert data.client_test.sizes.tolist() == [4, 4, 0]


def test_the_command_ends_with_2_and_one_line(tmp_path: Path) -> None:
    _without_target(hospitals(tmp_path / "data", SIZES))
    words = ["dataset=files", "dataset.path=data", "dataset.target=ill", "partition=given"]
    done = subprocess.run(
        [sys.executable, "-m", "fedexp", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert " ".join(done.stderr.split()) == (
        "fedexp: data/river.csv, line 8, column ill: the target is missing; fill it in, or take the row "
        "away"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
