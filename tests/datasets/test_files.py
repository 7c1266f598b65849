"""``dataset=files``: tables of one's own, from files to clients."""

from __future__ import annotations

import csv
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.helpers import config
from support.tables import files, hospitals, patients, write_csv

from fedexp.config.composition import compose_config
from fedexp.config.schema import Config
from fedexp.config.validation import validate
from fedexp.core.options import ConfigError
from fedexp.data.federated import FederatedData
from fedexp.datasets.files import Files
from fedexp.federation.dealing import describe_partition, federate
from fedexp.partitions.given import Given
from fedexp.testing import conforms
from fedexp.testing.pages import check_dataset

SIZES = {"north": 60, "river": 40, "valley": 20}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return hospitals(tmp_path / "data", SIZES)


def _given(dataset: Files) -> Config:
    found = config(dataset=dataset, partition=Given())
    assert validate(found) == []
    return found


def _federated(dataset: Files) -> FederatedData:
    return federate(_given(dataset))


def test_a_file_per_client(folder: Path) -> None:
    found = files(folder)
    assert (found.task, found.kind, found.fills) == ("classification", "vector", True)
    spec = found.spec
    assert (spec.shape, spec.classes, spec.owners) == ((4,), ("no", "yes"), tuple(SIZES))
    assert (spec.num_train, spec.num_test) == (96, 24)
    data = _federated(found)
    assert data.partition.sizes.tolist() == [48, 32, 16]
    assert data.client_test.sizes.tolist() == [12, 8, 4]


def test_tables_are_judged_by_more_than_accuracy(folder: Path) -> None:
    assert config(dataset=files(folder)).measured == [
        *("accuracy", "loss", "auroc", "balanced_accuracy"),
    ]
    assert config(dataset=files(folder), metrics=["ece"]).measured == ["accuracy", "loss", "ece"]
    numbers = files(folder, target="age", ignore=["ill"])
    assert config(dataset=numbers).measured == ["rmse", "loss", "mae", "r2"]


def test_labels_keep_their_proportions_among_an_owners_test_rows(folder: Path) -> None:
    data = _federated(files(folder, test_fraction=0.5))
    for client in range(3):
        ill = [
            part.targets[held.client(client)].sum()
            for part, held in ((data.train, data.partition), (data.test, data.client_test))
        ]
        assert abs(ill[0] - ill[1]) <= 1


def test_the_split_follows_its_own_seed_alone(folder: Path) -> None:
    first, again = files(folder).load(), files(folder).load()
    other = files(folder, split_seed=1).load()
    assert (first[1].inputs == again[1].inputs).all()
    assert not np.array_equal(first[1].inputs, other[1].inputs)


def test_a_test_folder_says_who_is_tested_on_what(folder: Path) -> None:
    """Case 22: three hospitals with rows of their own to be tested on."""
    hospitals(folder / "test", {"valley": 14, "north": 80, "river": 60})
    data = _federated(files(folder))
    assert data.partition.sizes.tolist() == [60, 40, 20]
    assert data.client_test.sizes.tolist() == [80, 60, 14]
    assert sorted(np.concatenate(data.client_test.pooled()).tolist()) == list(range(154))


def test_a_column_says_whose_a_row_is(folder: Path, tmp_path: Path) -> None:
    """The same rows in one file, in another order of rows' owners and of columns."""
    rows = [
        {"hospital": file.stem, **dict(reversed(list(row.items())))}
        for file in sorted(folder.glob("*.csv"), reverse=True)
        for row in csv.DictReader(file.open())
    ]
    by_file = _federated(files(folder))
    together = write_csv(tmp_path / "all.csv", rows)
    by_column = _federated(files(together, client="hospital"))
    assert by_column.partition.sha256 == by_file.partition.sha256
    assert by_column.train.inputs.tobytes() == by_file.train.inputs.tobytes()
    assert by_column.test.targets.tobytes() == by_file.test.targets.tobytes()
    pytest.importorskip("pyarrow")
    pd.read_csv(together).to_parquet(tmp_path / "all.parquet")
    by_parquet = _federated(files(tmp_path / "all.parquet", client="hospital"))
    assert by_parquet.train.inputs.tobytes() == by_file.train.inputs.tobytes()


def test_owners_that_are_numbers_are_in_their_order(tmp_path: Path) -> None:
    found = files(hospitals(tmp_path, {"10": 9, "9": 10, "2": 11}))
    assert found.spec.owners == ("2", "9", "10")


def test_scaling_is_fitted_on_training_rows_and_told(folder: Path) -> None:
    hospitals(folder / "test", dict.fromkeys(SIZES, 300))
    found = _given(files(folder))
    data = federate(found)
    np.testing.assert_allclose(data.train.inputs[:, :2].mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(data.train.inputs[:, :2].std(axis=0), 1, atol=1e-5)
    assert set(np.unique(data.train.inputs[:, 2:])) == {0, 1}
    frame = pd.concat([pd.read_csv(file) for file in sorted(folder.glob("*.csv"))])
    told = describe_partition(found, data)["columns"]
    assert [column["name"] for column in told] == ["age", "crp", "sex=female", "sex=male"]
    assert told[0]["mean"] == pytest.approx(frame["age"].mean())
    assert told[0]["scale"] == pytest.approx(frame["age"].std(ddof=0))
    assert told[2] == {"name": "sex=female"}


def test_held_out_rows_do_not_scale_anything(folder: Path) -> None:
    found = _given(files(folder, validation=0.5, validation_by="clients"))
    data = federate(found)
    own = data.train.inputs[np.concatenate(data.partition.pooled())]
    np.testing.assert_allclose(own[:, 0].mean(), 0, atol=1e-6)
    assert abs(data.train.inputs[:, 0].mean()) > 1e-4


def test_scaling_can_be_off_and_missing_numbers_are_filled_all_the_same(tmp_path: Path) -> None:
    rows = patients(40)
    rows[3]["age"] = ""
    path = write_csv(tmp_path / "a.csv", rows)
    hospitals(tmp_path / "b", {"test": 1})
    found = config(dataset=files(path, scale="off", test_fraction=0.1))
    data = federate(found)
    ages = np.array([float(str(row["age"] or "nan")) for row in rows])
    seen = np.concatenate([data.train.inputs[:, 0], data.test.inputs[:, 0]])
    stray = sorted(set(seen) - set(ages.astype(np.float32)))
    assert len(stray) == 1
    told = describe_partition(found, data)["columns"][0]
    assert stray[0] == np.float32(told["mean"])
    assert "scale" not in told


def test_a_regression_of_one_pooled_file(tmp_path: Path) -> None:
    found = files(write_csv(tmp_path / "a.csv", patients(50)), target="age", ignore=["ill"])
    assert (found.task, found.spec.owners, found.spec.values) == ("regression", (), 1)
    assert found.spec.shape == (3,)
    assert federate(config(dataset=found)).partition.sizes.tolist() == [14, 13, 13]


def test_arrays(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(30) % 3
    for name, inputs, kind, shape in (
        ("rows", rng.standard_normal((30, 5)), "vector", (5,)),
        ("waves", rng.standard_normal((30, 2, 16)), "series", (2, 16)),
        ("grey", rng.integers(0, 256, (30, 8, 8)).astype(np.uint8), "image", (1, 8, 8)),
        ("last", rng.integers(0, 256, (30, 8, 6, 3)).astype(np.uint8), "image", (3, 8, 6)),
    ):
        path = tmp_path / f"{name}.npz"
        np.savez(path, x=inputs, target=labels, who=labels)
        found = Files(path=str(path), client="who")
        assert (found.kind, found.spec.shape) == (kind, shape)
        assert found.spec.owners == ("0", "1", "2")
        check_dataset(found)
        if kind != "image":
            seen = _federated(found).train.inputs
            axes = (0,) if kind == "vector" else (0, 2)
            np.testing.assert_allclose(seen.std(axis=axes), 1, atol=1e-5)


def test_what_is_known_travels_without_the_files(folder: Path) -> None:
    found = files(folder)
    known = found.spec
    sent = pickle.dumps(found)
    for file in folder.iterdir():
        file.unlink()
    there = pickle.loads(sent)
    assert (there.spec, there.task, there.kind, there) == (known, "classification", "vector", found)


def test_a_relative_path_holds_where_a_job_changes_its_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    found = files(Path(folder.name))
    assert found.spec.owners == tuple(SIZES)
    monkeypatch.chdir("/")
    monkeypatch.setattr("fedexp.datasets.files._cache", OrderedDict())
    assert len(found.load()[0]) == found.spec.num_train


def test_a_file_that_was_changed_is_read_again(folder: Path) -> None:
    before = files(folder).spec.num_train
    write_csv(folder / "valley.csv", patients(200))
    assert files(folder).spec.num_train > before
    assert len(files(folder).load()[0]) == files(folder).spec.num_train


def test_the_number_of_clients_stands_in_the_configuration(folder: Path) -> None:
    words = [f"dataset.path={folder}", "dataset.target=ill", "dataset=files", "model=logistic"]
    found = compose_config([*words, "partition=given"])
    assert found.clients.num == 3
    with pytest.raises(ConfigError) as caught:
        compose_config([*words, "partition=given", "model=linear"])
    assert "model=linear is for regression" in caught.value.errors[0]


@pytest.mark.slow
def test_files_conform(folder: Path) -> None:
    conforms(files(folder), ("inline",))
