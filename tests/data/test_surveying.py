"""Owners agree without showing a row: what goes over the wire, and what it comes to."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.documents import ROOT

from fedexp.config.schema import Config
from fedexp.core.options import FedexpError
from fedexp.data.agreement import Agreement, Asked, agreement_of, in_order
from fedexp.data.own_rows import OwnRows, answered, asked_in, owner_of, read_own
from fedexp.data.surveying import survey_nodes
from fedexp.datasets.files import Files
from fedexp.datasets.on_nodes import OnNodes
from fedexp.federation.dealing import federate
from fedexp.partitions.given import Given

HOSPITALS = ROOT / "docs" / "hospitals"
OUTCOME = Asked(target="outcome", categories=("previous_stays",))


class Nodes:
    """Owners in this process; keeps all that they were asked and said."""

    def __init__(self, owners: Mapping[int, OwnRows]) -> None:
        self.owners = owners
        self.said: list[dict[str, Any]] = []
        self.spoil: Callable[[dict[str, Any]], object] = lambda answer: None

    def ask(self, kind: str, questions: Mapping[int, str]) -> dict[int, str]:
        answers = {}
        for node, question in questions.items():
            content = json.loads(question)
            rows = self.owners[node]
            found = answered(
                OwnRows(rows.owner, rows.train, rows.test, asked_in(content)), kind, content
            )
            if node == 2:
                self.spoil(found)
            self.said.append(found)
            answers[node] = json.dumps(found)
        return answers


def _nodes(folder: Path, asked: Asked, names: Mapping[str, str] | None = None) -> Nodes:
    """Number the owners otherwise than they are ordered."""
    files = sorted((p for p in folder.iterdir() if p.is_file()), reverse=True)
    told = names or {}
    return Nodes({k: read_own(file, told.get(file.stem), asked) for k, file in enumerate(files)})


def _agree(folder: Path, asked: Asked = OUTCOME, **names: str) -> Agreement:
    return survey_nodes(_nodes(folder, asked, names).ask, [0, 1, 2], asked)


def _write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.csv").write_text(text)
    return folder


def test_examples_are_bit_for_bit_those_of_files_that_lie_together() -> None:
    found = _agree(HOSPITALS)
    page = OnNodes(
        target="outcome",
        categories=["previous_stays"],
        agreed=json.loads(json.dumps(found.plain())),
    )
    together = federate(
        Config(
            dataset=Files(path=str(HOSPITALS), target="outcome", categories=["previous_stays"]),
            partition=Given(),
        )
    )
    assert found.spec == together.spec
    assert page.described() == list(together.columns)
    assert list(found.num_train) == together.partition.sizes.tolist()
    for client, owner in enumerate(found.owners):
        train, test = page.read(HOSPITALS / f"{owner}.csv", None)
        wanted = together.train_examples([client]), together.client_test_examples(client)
        for mine, theirs in zip((train, test), wanted, strict=True):
            assert mine.inputs.dtype == theirs.inputs.dtype
            assert mine.inputs.tobytes() == theirs.inputs.tobytes()
            assert mine.targets.tobytes() == theirs.targets.tobytes()


def test_nobody_says_how_many_have_a_category() -> None:
    nodes = _nodes(HOSPITALS, OUTCOME)
    found = survey_nodes(nodes.ask, [0, 1, 2], OUTCOME)
    is_number = found.schema.is_number
    told = [
        answer[k] for answer in nodes.said for k in ("counts", "sums", "squares") if k in answer
    ]
    assert len(told) == 9
    assert not is_number.all()
    for numbers in map(np.array, told):
        assert (numbers[~is_number] == 0).all()
        assert (numbers[is_number] != 0).all()


def test_an_agreement_survives_being_written_down() -> None:
    found = _agree(HOSPITALS)
    again = agreement_of(json.loads(json.dumps(found.plain())))
    assert again.sha256 == found.sha256
    assert again.scaling.mean.tobytes() == found.scaling.mean.tobytes()
    assert again.schema == found.schema


def test_nobody_says_what_stands_in_a_row(tmp_path: Path) -> None:
    head = "name,age,mixed,y\n"
    rows = "".join(f"Secret Person {k},{40 + k / 7},{k},{k * 1.5}\n" for k in range(200))
    folder = _write(tmp_path, a=head + rows, b=head + rows, c=head + rows + "x,1,Hidden,2\n")
    nodes = _nodes(folder, Asked(target="y"))
    with pytest.raises(FedexpError, match=r"^c, line 202, column mixed: a word is no number"):
        survey_nodes(nodes.ask, [0, 1, 2], Asked(target="y", ignore=()))
    said = json.dumps(nodes.said)
    assert not any(word in said for word in ("Secret", "Hidden", str(tmp_path), "40.14", "298.5"))
    left = Asked(target="y", ignore=("name", "mixed"))
    nodes = _nodes(folder, left)
    found = survey_nodes(nodes.ask, [0, 1, 2], left)
    assert found.schema.classes == ()
    assert "name" not in json.dumps(nodes.said)


def test_a_column_of_names_is_refused_and_its_words_are_not_told(tmp_path: Path) -> None:
    rows = "name,y\n" + "".join(f"Person {k},{k % 2}\n" for k in range(150))
    nodes = _nodes(_write(tmp_path, a=rows, b=rows, c=rows), Asked(target="y"))
    with pytest.raises(FedexpError, match="column name holds more than 100 different words"):
        survey_nodes(nodes.ask, [0, 1, 2], Asked(target="y"))
    assert "Person" not in json.dumps(nodes.said)


def test_clients_are_in_the_order_of_their_names() -> None:
    assert _agree(HOSPITALS).owners == ("north", "river", "valley")
    assert _agree(HOSPITALS, north="10", river="9", valley="2").owners == ("2", "9", "10")
    assert in_order(["10", "9", "b"]) == ["10", "9", "b"]
    with pytest.raises(FedexpError, match="two SuperNodes say that they are x: give each a name"):
        _agree(HOSPITALS, north="x", river="x")


def test_test_rows_may_have_files_of_their_own(tmp_path: Path) -> None:
    text = "a,y\n" + "".join(f"{k},{k % 2}\n" for k in range(10))
    for name in "abc":
        _write(tmp_path, **{name: text})
        (tmp_path / f"node-{name}" / "test").mkdir(parents=True)
        _write(tmp_path / f"node-{name}", **{name: text})
        _write(tmp_path / f"node-{name}" / "test", **{name: text})
    asked = Asked(target="y")
    owners = {k: read_own(tmp_path / f"node-{n}", None, asked) for k, n in enumerate("abc")}
    found = survey_nodes(Nodes(owners).ask, [0, 1, 2], asked)
    assert found.tests_given
    assert (found.num_train, found.num_test) == ((10, 10, 10), (10, 10, 10))
    owners[1] = read_own(tmp_path / "b.csv", None, asked)
    with pytest.raises(
        FedexpError, match=r"^a has test rows in a file of their own, and b has not"
    ):
        survey_nodes(Nodes(owners).ask, [0, 1, 2], asked)


def test_a_file_that_has_changed_is_refused(tmp_path: Path) -> None:
    text = "a,y\n" + "".join(f"{k},{k % 2}\n" for k in range(10))
    folder = _write(tmp_path, a=text, b=text, c=text)
    page = OnNodes(target="y", agreed=_agree(folder, Asked(target="y")).plain())
    page.read(folder / "b.csv", None)
    _write(folder, b=text + "3,1\n")
    with pytest.raises(FedexpError, match=r"^b has 11 rows now .* survey them again"):
        page.read(folder / "b.csv", None)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ("x,yes\nx,no\n", r"^column y holds words at c, and numbers of a regression at a"),
        ("${oc.env:HOME},1\n", r"^column a: \$\{ must stand in no name"),
        ("3,1\n3,2\n3,0\n3,1\n3,1\n3,1\n", r"^a, line 2, column a: a word is no number"),
    ],
)
def test_what_does_not_go_together_is_told_in_a_line(tmp_path: Path, rows: str, told: str) -> None:
    one = "a,y\nx,0.5\nx,1.5\n"
    with pytest.raises(FedexpError, match=told):
        _agree(_write(tmp_path, a=one, b=one, c=f"a,y\n{rows}"), Asked(target="y"))


def _set(*path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def spoil(answer: dict[str, Any]) -> None:
        *above, last = path
        inner: Any = answer
        for key in above:
            inner = inner.get(key, {})
        if last in inner:
            inner[last] = value

    return spoil


BAD = [
    ("owner", 3),
    ("owner", ""),
    ("owner", "a\nb"),
    ("owner", "a" * 101),
    ("rows", 0),
    ("rows", 2.0),
    ("rows", True),
    ("rows", 10**15),
    ("test_rows", "many"),
    ("columns", []),
    ("columns", {"a\tb": {}}),
    ("columns", {"age": None}),
    ("columns", {"age": {"numbers": -1}}),
    (
        "columns",
        {"age": {"numbers": 1, "words": 0, "categories": [], "a_number": "", "a_word": ""}},
    ),
    ("targets", ["x"]),
    ("targets", [1e400]),
    ("targets", [10**400]),
    ("target_words", ["x"] * 2000),
    ("target_words", ["x" * 501]),
    ("target_words", []),
    ("train", 0),
    ("test", -1),
    ("counts", [1.0]),
    ("counts", [1e9] * 22),
    ("sums", [float("nan")] * 22),
    ("sums", "1"),
    ("target_squares", -1.0),
    ("squares", [float("inf")] * 22),
    ("squares", None),
]


@pytest.mark.parametrize(("name", "value"), BAD, ids=[f"{n}={str(v)[:20]!r}" for n, v in BAD])
def test_no_answer_is_believed(name: str, value: Any) -> None:
    nodes = _nodes(HOSPITALS, Asked(target="outcome"))
    nodes.spoil = _set(name, value=value)
    with pytest.raises(
        FedexpError, match=r"^SuperNode 2: its answer to the survey cannot be used: "
    ) as e:
        survey_nodes(nodes.ask, [0, 1, 2], Asked(target="outcome"))
    assert len(str(e.value)) < 300


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, "{}" * 3_000_000, "1" * 5000])
def test_no_text_is_believed(text: str) -> None:
    with pytest.raises(FedexpError, match=r"^SuperNode 1: its answer to the survey cannot be used"):
        survey_nodes(lambda kind, asked: {1: text}, [1], OUTCOME)


@pytest.mark.parametrize(
    "change",
    [
        {"predict": "nonsense"},
        {"test_fraction": 2},
        {"split_seed": -1},
        {"split_seed": "x"},
        {"categories": 3},
    ],
)
def test_no_question_is_believed(change: dict[str, Any]) -> None:
    sound = {"target": "y", "predict": "auto", "categories": [], "ignore": [], "test_fraction": 0.2}
    assert asked_in({**sound, "split_seed": 0}) == Asked(target="y")
    with pytest.raises(FedexpError, match=r"^the question cannot be read"):
        asked_in({**sound, "split_seed": 0, **change})


def test_a_question_about_another_schema_is_refused() -> None:
    rows = read_own(HOSPITALS / "north.csv", None, OUTCOME)
    for question in ({}, {"schema": {"inputs": [1]}, "before": 0}, {"schema": None, "before": "x"}):
        with pytest.raises(FedexpError, match=r"^the question cannot be read"):
            answered(rows, "summed", question)


@pytest.mark.parametrize(
    "change",
    [{"rows": ["x"]}, {"mean": [0.0]}, {"inputs": 3}, {"owners": ["a"]}, {"num_test": None}],
)
def test_a_spoilt_agreement_is_refused(change: dict[str, Any]) -> None:
    plain = _agree(HOSPITALS).plain()
    with pytest.raises(FedexpError, match=r"^dataset\.agreed .* survey"):
        agreement_of({**plain, **change})


def test_files_that_cannot_be_used_are_told_without_their_path(tmp_path: Path) -> None:
    folder = tmp_path / "secret place"
    folder.mkdir()
    (folder / "a.csv").write_text("a,y\n1,2\n")
    (folder / "b.csv").write_text("a,y\n1,2\n")
    with pytest.raises(FedexpError, match="must hold one file") as error:
        read_own(folder, "north", Asked(target="y"))
    assert str(tmp_path) not in str(error.value)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(FedexpError, match=r"^nothing holds no file") as error:
        owner_of(tmp_path / "nothing", None)
    assert owner_of(folder, None) == "a"
    assert owner_of(tmp_path / "east.csv", None) == "east"
    (tmp_path / "c.csv").write_text("a,y\n1\n")
    with pytest.raises(FedexpError, match=r"^c, line 2: 1 cells where") as error:
        read_own(tmp_path / "c.csv", None, Asked(target="y"))
    np.savez(tmp_path / "d.npz", x=np.zeros((3, 2)), y=np.arange(3))
    with pytest.raises(FedexpError, match=r"^d holds an array of inputs"):
        read_own(tmp_path / "d.npz", None, Asked(target="y"))
