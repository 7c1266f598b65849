"""``fedexp help`` and ``--help``: every option and choice is explained, in lines that fit."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path

import pytest
from support.programs import program

from fedexp import commands, manual
from fedexp.config import plugins
from fedexp.config.schema import GROUPS, Config
from fedexp.core.describing import meanings, options
from fedexp.core.options import FedexpError, ranged
from fedexp.manual import topics
from fedexp.strategies import Strategy
from fedexp.strategies import register as register_strategy

ALL = [choice for group in topics.GROUPS for choice in topics.choices(group)]


@register_strategy
@dataclass(frozen=True)
class Halved(Strategy):
    """Half of the mean."""

    name: str = "halved_for_help"
    share: float = ranged(0.5, gt=0, le=1)
    """How much of the mean is kept."""


plugins.REGISTRIES["strategy"].forget("halved_for_help")


@pytest.fixture
def halved() -> Iterator[None]:
    """Register a strategy from outside."""
    register_strategy(Halved)
    yield
    plugins.REGISTRIES["strategy"].forget("halved_for_help")


def test_every_option_says_what_it_means() -> None:
    listed = [option for topic in topics.SECTIONS for option in topics.section(topic)]
    listed += [option for choice in ALL for option in topics.choice_options(choice)]
    assert len(listed) > 90
    assert [option.name for option in listed if not option.meaning.endswith(".")] == []


def test_no_option_is_left_out() -> None:
    declared = set(_declared(Config(), ""))
    listed = {option.name for topic in topics.SECTIONS for option in topics.section(topic)}
    assert declared == listed


def _declared(node: object, prefix: str) -> Iterator[str]:
    for item in fields(node):  # type: ignore[arg-type]
        value, groups = getattr(node, item.name), GROUPS
        if is_dataclass(value):
            yield from () if item.name in groups else _declared(value, f"{prefix}{item.name}.")
        else:
            yield f"{prefix}{item.name}"


def test_every_choice_and_command_has_a_line() -> None:
    assert [choice.chosen_by for choice in ALL if len(choice.about) < 8] == []
    assert set(manual.COMMANDS) == set(commands.COMMANDS)


def test_defaults_are_those_of_a_plain_run() -> None:
    (name,) = [option for option in topics.section("run") if option.name == "name"]
    assert name.default == "lesson"


@pytest.mark.parametrize("columns", [80, 120])
def test_no_line_is_wider_than_the_terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    pages = [manual.overview(), manual.index(), manual.topic_page("tables")]
    pages += [manual.topic_page(topic) for topic in {*topics.GROUPS, *topics.SECTIONS}]
    pages += [manual.topic_page(f"{choice.group}={choice.name}") for choice in ALL]
    wide = [line for page in pages for line in page.splitlines() if len(line) > columns]
    assert wide == []


def test_a_page_says_range_default_and_paper() -> None:
    page = manual.topic_page("scaffold")
    assert page == manual.topic_page("strategy=scaffold")
    assert "arXiv 1910.06378" in page
    assert re.search(r"strategy.server_learning_rate=1.0 +number > 0\n", page)


def test_an_option_is_a_topic_whatever_stands_behind_it() -> None:
    page = manual.topic_page("training.learning_rate")
    assert re.search(r"training.learning_rate=0.01 +number > 0\n", page)
    assert manual.topic_page("training.learning_rate=0.1") == page
    several = manual.topic_page("strategy.eta")
    assert [line for line in several.splitlines() if line.startswith("strategy=")] == [
        "strategy=fedadagrad",
        "strategy=fedadam",
        "strategy=fedala",
        "strategy=fedyogi",
        "strategy=pfedme",
    ]


@pytest.mark.parametrize(
    ("topic", "meant"),
    [("strategie", "strategy"), ("strategy=scafold", "strategy=scaffold"), ("fedadm", "fedadam")],
)
def test_an_unknown_topic_names_the_nearest(
    topic: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        manual.help_program([topic])
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert meant in err.partition("did you mean ")[2].rstrip("?\n").split(" or ")


def test_what_comes_from_outside_is_explained_too(halved: None, tmp_path: Path) -> None:
    assert "halved_for_help" in manual.overview()
    page = manual.topic_page("strategy=halved_for_help")
    assert "Half of the mean." in page
    assert "How much of the mean is kept." in page
    preset = tmp_path / "partition" / "mine.yaml"
    preset.parent.mkdir()
    preset.write_text("# Two halves.\ndefaults: [iid, _self_]\nsamples_per_client: 10\n")
    assert "partition=mine: Two halves." in manual.topic_page("mine", str(tmp_path))
    with pytest.raises(FedexpError, match="mine: no such topic"):
        manual.topic_page("mine")


def test_an_option_that_is_declared_anew_may_mean_something_else() -> None:
    @dataclass(frozen=True)
    class First:
        a: int = 1
        """One."""
        b: int = 2
        """Two."""

    assert meanings(First) == {}  # of a class in a function, whose place in the file is not known

    assert meanings(Again) == {"b": "Two.", "c": "Three."}
    assert [option.values for option in options(Again)] == ["whole number"] * 2 + ["true or false"]


@dataclass(frozen=True)
class Before:
    """Something with options."""

    a: int = 1
    """One."""
    b: int = 2
    """Two."""


@dataclass(frozen=True)
class Again(Before):
    """Something that has one of them for itself."""

    a: int = 7
    c: bool = False
    """Three."""


def test_help_needs_no_torch_and_writes_nothing(tmp_path: Path) -> None:
    found = program(
        tmp_path, "help", "strategy", spied=True, environment={"PYTHONIOENCODING": "ascii"}
    )
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.splitlines()[-1] == "[]"
    assert list(tmp_path.iterdir()) == []
