"""Every YAML file composes, opens with a command that chooses it, and that command is sound."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedexp.config.composition import check_command, conf_dir
from fedexp.config.schema import SCHEMAS

ALL = sorted(file.relative_to(conf_dir()) for file in conf_dir().rglob("*.yaml"))
FILES = [file for file in ALL if file.parts[0] != "hydra"]


def _read(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((conf_dir() / file).read_text())
    return content


def _commands(file: Path) -> list[list[str]]:
    text = (conf_dir() / file).read_text()
    comments = [line[2:] for line in text.splitlines() if line.startswith("# ")]
    lines = [line for line in comments if line.split()[0] == "fedexp"]
    # Two blanks or more set off an explanation.
    return [shlex.split(line.split("   ")[0])[1:] for line in lines]


@pytest.mark.parametrize("file", FILES, ids=str)
def test_the_commands_of_a_file_are_sound(file: Path) -> None:
    commands = _commands(file)
    assert commands, "the file must open with the command that runs it"
    for words in commands:
        multirun = words[:1] == ["-m"]
        configs = check_command(words[1:] if multirun else words, multirun=multirun)
        group = file.parent.name
        if group:
            choices = [word for word in words if word.lstrip("+").startswith(f"{group}=")]
            assert file.stem in re.split(r"[=\[\],]", choices[0])
        if group in SCHEMAS or file == Path("tracking/wandb.yaml"):
            chosen = dataclasses.asdict(getattr(configs[0], group))
            given = {word.split("=")[0] for word in words}
            stated = _read(file).items()
            kept = {k: v for k, v in stated if k != "defaults" and f"{group}.{k}" not in given}
            assert kept
            assert {key: chosen[key] for key in kept} == kept


@pytest.mark.parametrize("file", [file for file in ALL if file not in FILES], ids=str)
def test_hydras_own_choices_are_made_by_the_root(file: Path) -> None:
    assert {f"override {file.parent}": file.stem} in _read(Path("config.yaml"))["defaults"]


@pytest.mark.parametrize("group", [group for group in SCHEMAS if group != "clients"])
def test_every_schema_has_a_file(group: str) -> None:
    contents = [_read(file) for file in FILES if file.parent.name == group]
    assert {content["name"] for content in contents if "name" in content} == set(SCHEMAS[group])


@pytest.mark.parametrize("file", [file for file in FILES if file.parent.name == "clients"], ids=str)
def test_a_preset_of_clients_states_every_option(file: Path) -> None:
    options = {item.name for item in dataclasses.fields(SCHEMAS["clients"]["clients"])}
    assert set(_read(file)) - {"defaults"} == options
