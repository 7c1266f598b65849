"""``partition=given``: the data say who holds what, of training and test examples alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
from support.helpers import config, forget_datasets

from fedexp import datasets
from fedexp.config.schema import Config
from fedexp.config.validation import validate
from fedexp.core.options import FedexpError
from fedexp.data import loading
from fedexp.data.examples import Examples, Spec
from fedexp.datasets import Dataset
from fedexp.federation.dealing import describe_partition, federate
from fedexp.partitions.exclude import Exclude
from fedexp.partitions.given import Given
from fedexp.preview import partition_table
from fedexp.testing import DoesNotConform, conforms
from fedexp.testing.pages import check_dataset

TRAIN, TEST = (50, 20, 30), (8, 0, 4)


@dataclass(frozen=True)
class Owned(Dataset):
    """Points that belong to three owners, in no order."""

    facts: ClassVar[Spec | None] = Spec(
        (3,), ("no", "yes"), sum(TRAIN), sum(TEST), owners=("north", "river", "valley")
    )

    name: str = "owned"
    test_has_owners: bool = True

    def load(self) -> tuple[Examples, Examples]:
        rng = np.random.default_rng(0)

        def draw(sizes: tuple[int, ...], has_owners: bool = True) -> Examples:
            owners = rng.permutation(np.repeat(np.arange(3), sizes))
            inputs = rng.standard_normal((len(owners), 3)).astype(np.float32)
            labels = (inputs[:, 0] > 0).astype(np.int64)
            return Examples(inputs, labels, owners if has_owners else None)

        return draw(TRAIN), draw(TEST, self.test_has_owners)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    forget_datasets(monkeypatch)
    datasets.register(Owned)
    yield
    datasets.REGISTRY.forget("owned")


def _config(**changes: object) -> Config:
    return config(**{"dataset": Owned(), "partition": Given(), **changes})


def test_every_owner_is_a_client_and_is_tested_on_its_own() -> None:
    found = _config()
    assert validate(found) == []
    data = federate(found)
    train, test = loading.load(found.dataset)
    assert train.owners is not None
    assert test.owners is not None
    for client in range(3):
        assert (train.owners[data.partition.client(client)] == client).all()
        assert (test.owners[data.client_test.client(client)] == client).all()
    assert data.partition.sizes.tolist() == list(TRAIN)
    assert data.client_test.sizes.tolist() == list(TEST)
    assert describe_partition(found, data)["owners"] == ["north", "river", "valley"]
    assert "  clients: 0 north, 1 river, 2 valley" in partition_table(found, data).splitlines()


def test_the_number_of_clients_follows_from_the_data() -> None:
    few = _config().clients
    found = _config(clients=replace(few, num=17, fraction_train=0.5))
    assert (found.clients.num, found.clients.fraction_train) == (3, 0.5)


def test_no_seed_changes_who_holds_what() -> None:
    assert len({federate(_config(seed=seed)).partition.sha256 for seed in (0, 1)}) == 1


def test_test_examples_of_nobody_are_dealt_by_labels() -> None:
    data = federate(_config(dataset=Owned(test_has_owners=False)))
    assert data.client_test.sizes.sum() == sum(TEST)
    assert (data.client_test.sizes > 0).all()


def test_validation_comes_out_of_every_clients_own() -> None:
    data = federate(_config(dataset=Owned(validation=0.5, validation_by="clients")))
    assert data.client_val is not None
    assert data.partition.sizes.tolist() == [25, 10, 15]
    assert data.client_val.sizes.tolist() == [25, 10, 15]
    server = federate(_config(dataset=Owned(validation=0.5)))
    assert len(server.server_val) == sum(server.partition.sizes) == 50


def test_data_without_owners_are_a_mistake() -> None:
    (line,) = validate(config(partition=Given()))
    assert line.startswith("partition=given: dataset=mnist5k does not say whose an example is")


def test_the_partition_of_the_lesson_says_which_one_is_meant() -> None:
    lines = validate(config(dataset=Owned(), partition=Exclude(exclude=[[1, 3], [2], [4]])))
    assert lines[0] == (
        "partition.exclude[0] must hold labels from 0 to 1, got [1, 3]; partition=given goes by whose "
        "the data are"
    )


def test_other_partitions_deal_owned_data_as_any() -> None:
    assert federate(config(dataset=Owned())).partition.sizes.tolist() == [34, 33, 33]


def test_owners_are_measured_where_no_page_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Owned, "facts", None)
    assert Owned().spec.owners == ("0", "1", "2")


def test_a_data_set_with_owners_keeps_to_its_contract() -> None:
    check_dataset(Owned())


@pytest.mark.parametrize(
    ("owners", "finding"),
    [
        (np.zeros(100), "must have an owner 0, 1, ... each"),
        (np.zeros(99, dtype=np.int64), "must have an owner 0, 1, ... each"),
        (np.full(100, -1), "must have an owner 0, 1, ... each"),
        (np.full(100, 3), "owners are up to 3; its page names 3"),
    ],
)
def test_owners_that_are_none(
    owners: np.ndarray[tuple[int], np.dtype[np.int64]],
    finding: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    train, test = Owned().load()
    monkeypatch.setattr(Owned, "load", lambda _: (replace(train, owners=owners), test))
    with pytest.raises(FedexpError, match=finding):
        federate(_config())
    with pytest.raises(DoesNotConform, match=finding):
        conforms(Owned(), ("inline",))
