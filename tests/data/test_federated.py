from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
from support.helpers import config

from fedexp.config.clients import ByzantineConfig, ClientsConfig
from fedexp.config.composition import compose_config
from fedexp.core.options import FedexpError
from fedexp.core.roles import Order
from fedexp.data import loading
from fedexp.data.assignment import Assignment
from fedexp.data.examples import Examples, Spec
from fedexp.data.federated import FederatedData
from fedexp.datasets import Dataset
from fedexp.federation.client import ClientNode
from fedexp.federation.dealing import federate
from fedexp.federation.evaluation import ServerEvaluation


def test_clients_hold_train_and_test_images_of_the_same_labels() -> None:
    held = federate(compose_config([]))
    counts = held.partition.class_counts(held.train.targets, 10)
    tests = held.client_test.class_counts(held.test.targets, 10)
    assert counts.shape == tests.shape == (3, 10)
    assert ((counts == 0) == (tests == 0)).all()
    for client, missing in enumerate([[1, 3, 7], [2, 5, 8], [4, 6, 9]]):
        assert np.flatnonzero(counts[client] == 0).tolist() == missing
    assert tests.sum() == 1_000


def _examples(*values: int) -> Examples:
    return Examples(np.array(values, dtype=np.float32)[:, None], np.arange(len(values)) % 2)


def test_clients_get_copies_of_what_they_hold() -> None:
    data = FederatedData(
        Spec((1,), ("a", "b"), 4, 3),
        _examples(10, 11, 12, 13),
        _examples(20, 21, 22),
        Assignment.of([np.array([3, 0]), np.array([1])]),
        Assignment.of([np.array([2]), np.array([0, 1])]),
    )
    held = data.train_examples([1, 0])
    assert held.inputs.ravel().tolist() == [11, 13, 10]
    assert held.targets.tolist() == [1, 1, 0]
    assert data.client_test_examples(1).inputs.ravel().tolist() == [20, 21]
    held.inputs[:] = 0
    data.client_test_examples(0).targets[:] = 9
    assert data.train.inputs.ravel().tolist() == [10, 11, 12, 13]
    assert data.test.targets.tolist() == [0, 1, 0]
    seen = replace(data, seen_test=_examples(30, 31, 32))
    assert seen.client_test_examples(0).inputs.ravel().tolist() == [32]
    assert seen.test.inputs.ravel().tolist() == [20, 21, 22]


@dataclass(frozen=True)
class Lying(Dataset):
    """Says that it has so many features and labels; it has two of each."""

    name: str = "lying"
    features: int = 2
    labels: int = 2

    @property
    def spec(self) -> Spec:
        return Spec((self.features,), ("a",) * self.labels, 8, 4)

    def load(self) -> tuple[Examples, Examples]:
        train, test = np.zeros((8, 2), np.float32), np.zeros((4, 2), np.float32)
        return Examples(train, np.arange(8) % 2), Examples(test, np.arange(4) % 2)


def test_a_page_that_says_what_is_not_so_is_refused() -> None:
    assert federate(config(dataset=Lying())).partition.sizes.tolist() == [3, 3, 2]
    for wrong in (Lying(features=3), Lying(labels=1)):
        with pytest.raises(FedexpError, match="dataset=lying: the training "):
            federate(config(dataset=wrong))


@dataclass(frozen=True)
class Measured(Lying):
    """Of which nothing is known before it is read; counts how often that is."""

    reads: ClassVar[list[str]] = []

    name: str = "measured"

    @property
    def spec(self) -> Spec:
        return Dataset.spec.fget(self)  # type: ignore[attr-defined,no-any-return]

    def load(self) -> tuple[Examples, Examples]:
        self.reads.append(self.name)
        return super().load()


@pytest.mark.parametrize("kind", ["label_flip", "gaussian"])
def test_a_client_reads_no_files(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has its data from the server: another machine need not have the files at all."""
    monkeypatch.setattr(Measured, "reads", [])
    loading._loaded.clear()
    faulty = ClientsConfig(byzantine=ByzantineConfig(0.9, kind))
    experiment = config(dataset=Measured(), clients=faulty)
    data = federate(experiment)
    initial = ServerEvaluation(experiment, data).initial
    assert Measured.reads == ["measured"]
    loading._loaded.clear()  # as in another process
    node = ClientNode(experiment, lambda: data)
    for client in range(3):
        node.train(client, 1, Order(initial), {})
        node.evaluate(client, 1, Order(initial), {})
    assert Measured.reads == ["measured"]
