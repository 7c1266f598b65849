"""Links lead somewhere, every document can be reached, and every command in one can be given."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest
from support.commands import refused
from support.documents import ROOT, Command, anchors_in, commands_in, documents, links_in
from support.on_nodes import write_preset

from fedexp.commands import COMMANDS
from fedexp.config.composition import plan
from fedexp.core.options import ConfigError

ALL = [command for path in documents() for command in commands_in(path)]
PROGRAMS = [c for c in ALL if c.words[0] == "fedexp" and c.words[1:2] and c.words[1] in COMMANDS]
RUNS = [c for c in ALL if c.words[0] == "fedexp" and c not in PROGRAMS]


def _target(document: Path, link: str) -> Path:
    path = link.partition("#")[0]
    return (document.parent / path).resolve() if path else document


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    broken = []
    for link in links_in(path):
        target, anchor = _target(path, link), link.partition("#")[2]
        if not target.exists() or (anchor and anchor not in anchors_in(target)):
            broken.append(link)
    assert broken == []


def test_every_picture_is_shown_and_small() -> None:
    shown = {_target(path, link) for path in documents() for link in links_in(path)}
    pictures = set((ROOT / "docs" / "images").glob("*"))
    assert pictures <= shown
    assert [path for path in pictures if path.stat().st_size > 300_000] == []


AWAY = {
    *(f"model={name}" for name in ("jax_mlp", "keras_mlp", "transformers")),
    *(f"dataset={name}" for name in ("churn", "credit", "newsgroups20", "reuters8", "watch")),
    *("dataset=shakespeare", "experiment=shakespeare"),
}
"""What needs files that this machine need not have, or packages that bring them."""


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # commands name files of it


def _check_run(command: Command, tmp_path: Path) -> None:
    words = command.words[1:]
    overrides = [word for word in words if word not in ("-m", "--cfg", "job", "--help")]
    config_dir = None
    if "--config-dir" in overrides:
        at = overrides.index("--config-dir")
        config_dir = str(_presets(tmp_path))
        del overrides[at : at + 2]
    if command.refused:
        with pytest.raises(ConfigError):
            plan(overrides, multirun="-m" in words, config_dir=config_dir)
    elif AWAY & set(overrides):
        lines = refused(overrides, multirun="-m" in words)
        assert all("pip install" in line or "FOLDER" in line for line in lines)
    else:
        assert plan(overrides, multirun="-m" in words, config_dir=config_dir)


def _presets(folder: Path) -> Path:
    """Make the folders of presets that docs/extend.md and docs/deployment.md describe, in one."""
    write_preset(folder)
    (folder / "strategy").mkdir(exist_ok=True)
    text = "defaults:\n  - fedadam\n  - _self_\neta: 0.001\n"
    (folder / "strategy" / "gentle.yaml").write_text(text)
    return folder


@pytest.mark.parametrize("command", [c for c in RUNS if c.document == "README.md"], ids=str)
def test_an_experiment_of_the_readme_is_one(command: Command, tmp_path: Path) -> None:
    _check_run(command, tmp_path)


@pytest.mark.slow  # composing some hundreds of jobs: half a minute
@pytest.mark.parametrize("command", [c for c in RUNS if c.document != "README.md"], ids=str)
def test_an_experiment_of_another_document_is_one(command: Command, tmp_path: Path) -> None:
    _check_run(command, tmp_path)


class _Parsed(Exception):
    """A program's arguments are in order."""


@pytest.mark.parametrize("command", PROGRAMS, ids=str)
def test_a_program_takes_these_arguments(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def then_stop(parse: Callable[..., argparse.Namespace]) -> Callable[..., None]:
        def parse_and_stop(*args: object, **kwargs: object) -> None:
            parse(*args, **kwargs)
            raise _Parsed

        return parse_and_stop

    for name in ("parse_args", "parse_intermixed_args"):
        method = getattr(argparse.ArgumentParser, name)
        if command.words[1] == "reproduce" and name == "parse_args":
            continue  # parse_intermixed_args calls it
        monkeypatch.setattr(argparse.ArgumentParser, name, then_stop(method))
    _, name, *arguments = command.words
    if "|" in arguments or ">" in arguments:
        arguments = arguments[: min(arguments.index(w) for w in "|>" if w in arguments)]
    with pytest.raises(_Parsed):
        COMMANDS[name](arguments)


def test_python_runs_scripts_that_are_there_or_printed() -> None:
    texts = [path.read_text() for path in documents()]
    strangers = [
        str(command)
        for command in ALL
        if command.words[0] == "python"
        and not (ROOT / command.words[1]).is_file()
        and not any('"""' in text and command.words[1] in text for text in texts)
    ]
    assert strangers == []


def test_every_document_can_be_reached_from_the_readme() -> None:
    reached, left = set[Path](), [ROOT / "README.md"]
    while left:
        document = left.pop()
        reached.add(document)
        found = {_target(document, link) for link in links_in(document)}
        left += [t for t in found if t.suffix == ".md" and t.is_file() and t not in reached]
    assert set(documents()) - reached == set()
