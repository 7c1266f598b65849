"""Tables that come with scikit-learn."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
from support.helpers import config

from fedexp.config.validation import validate
from fedexp.core.options import FedexpError
from fedexp.datasets.breast_cancer import BreastCancer
from fedexp.datasets.diabetes import Diabetes
from fedexp.datasets.tables import TableDataset
from fedexp.datasets.wine import Wine
from fedexp.federation.dealing import federate
from fedexp.models.linear import Linear
from fedexp.models.logistic import Logistic
from fedexp.testing import conforms

PAGES = [BreastCancer(), Wine(), Diabetes()]


@pytest.mark.parametrize(
    ("page", "rows", "columns"), [(PAGES[0], 569, 30), (PAGES[1], 178, 13), (PAGES[2], 442, 10)]
)
def test_every_row_is_there_once_and_a_fifth_is_for_tests(
    page: TableDataset, rows: int, columns: int
) -> None:
    train, test = page.load()
    assert (len(train) + len(test), page.spec.shape) == (rows, (columns,))
    whole = np.c_[page.table().inputs, page.table().targets]
    dealt = np.r_[np.c_[train.inputs, train.targets], np.c_[test.inputs, test.targets]]
    assert sorted(map(tuple, dealt)) == sorted(map(tuple, whole))
    for label in range(page.spec.num_classes):
        count = int((page.table().targets == label).sum())
        assert int((test.targets == label).sum()) == count // 5


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_training_rows_are_scaled_by_what_clients_know_together(page: TableDataset) -> None:
    model = Linear() if page.task == "regression" else Logistic()
    found = config(dataset=page, model=model)
    assert validate(found) == []
    data = federate(found)
    raw = page.load()[1].inputs
    pooled = page.load()[0].inputs[np.concatenate(data.partition.pooled())]
    np.testing.assert_allclose(data.train.inputs.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(data.train.inputs.std(axis=0), 1, atol=1e-5)
    wanted = (raw - pooled.mean(axis=0)) / pooled.std(axis=0)
    np.testing.assert_allclose(data.test.inputs, wanted, rtol=1e-4, atol=1e-5)


def test_targets_of_the_regression_are_about_their_own_deviation() -> None:
    targets = np.concatenate([part.targets for part in Diabetes().load()])
    assert targets.dtype == np.float32
    assert abs(targets.mean()) < 0.05
    assert abs(targets.std() - 1) < 0.05


def test_validation_rows_are_scaled_by_the_others() -> None:
    page = replace(BreastCancer(), validation=0.2, validation_by="clients")
    data = federate(config(dataset=page, model=Logistic()))
    trained_on = data.train.inputs[np.concatenate(data.partition.pooled())]
    np.testing.assert_allclose(trained_on.mean(axis=0), 0, atol=1e-5)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_an_installation_without_scikit_learn_is_told_what_lacks(
    page: TableDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)  # whoever imports it fails
    for failing in (page.ensure, page.load):
        with pytest.raises(FedexpError, match=r": pip install scikit-learn$") as caught:
            failing()
        assert str(caught.value).startswith(f"dataset={page.name} comes with the package ")
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.slow  # whole runs
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_pages_conform(page: TableDataset) -> None:
    conforms(page, ("inline",))
