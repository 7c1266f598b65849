"""Every YAML file composes, opens with a command, and that command is sound."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import yaml

from fedexp.composition import check_command, conf_dir
from fedexp.config import SCHEMAS

FILES = [file for file in sorted(conf_dir().rglob("*.yaml")) if "hydra" not in file.parts[-3:]]


def _commands(file: Path) -> list[list[str]]:
    comments = [line[2:] for line in file.read_text().splitlines() if line.startswith("# ")]
    lines = [line for line in comments if line.split()[0] == "fedexp"]
    # Two blanks or more set off an explanation.
    return [shlex.split(line.split("   ")[0])[1:] for line in lines]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(conf_dir())))
def test_the_commands_of_a_file_are_sound(file: Path) -> None:
    commands = _commands(file)
    assert commands, "the file must open with the command that runs it"
    for words in commands:
        multirun = words[:1] == ["-m"]
        configs = check_command(words[1:] if multirun else words, multirun=multirun)
        group = file.parent.name
        if group in SCHEMAS and group != "clients" and file.stem != "lesson":
            assert getattr(configs[0], group).name == file.stem


@pytest.mark.parametrize("group", SCHEMAS)
def test_every_schema_has_a_file(group: str) -> None:
    files = [yaml.safe_load(file.read_text()) for file in (conf_dir() / group).glob("*.yaml")]
    if group == "clients":
        return  # presets of one schema
    assert {content["name"] for content in files if "name" in content} == set(SCHEMAS[group])
