"""Every YAML file composes, opens with a command that chooses it, and that command is sound.

What a file states is what its dataclass has by default, unless the file is there to differ.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.commands import refused
from support.documents import ROOT

from fedexp.config.clients import ClientsConfig
from fedexp.config.composition import compose_config, plan
from fedexp.config.schema import GROUPS, Config, StopConfig
from fedexp.config.source import conf_dir
from fedexp.config.tracking import TrackingConfig
from fedexp.config.training import TrainingConfig
from fedexp.partitions.exclude import Exclude

ALL = sorted(file.relative_to(conf_dir()) for file in conf_dir().rglob("*.yaml"))
FILES = [file for file in ALL if file.parts[0] != "hydra"]
PAGES = [
    (group, name)
    for group, registry in GROUPS.items()
    for name in registry.choices()
    if registry.is_built_in(name)
]
AWAY = {
    *(f"dataset/{name}.yaml" for name in ("churn", "credit", "newsgroups20", "reuters8")),
    *("dataset/on_nodes.yaml", "dataset/shakespeare.yaml", "dataset/watch.yaml"),
    *("experiment/shakespeare.yaml", "model/transformers.yaml"),
}
"""What needs an extra, nodes, or files of the user's; its commands are tried by the tests of extras."""

LESSON = Exclude(seed=42, exclude=[[1, 3, 7], [2, 5, 8], [4, 6, 9]])


def _read(file: Path | str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((conf_dir() / file).read_text())
    return content


def _stated(file: Path | str) -> dict[str, Any]:
    return {key: value for key, value in _read(file).items() if key != "defaults"}


def _commands(file: Path) -> list[list[str]]:
    text = (conf_dir() / file).read_text()
    comments = [line[2:] for line in text.splitlines() if line.startswith("# ")]
    lines = [line for line in comments if line.split()[0] == "fedexp"]
    # Two blanks or more set off an explanation.
    return [shlex.split(line.split("   ")[0])[1:] for line in lines]


@pytest.mark.parametrize(
    "file",  # composing takes a fifth of a second: the quick tests have every third
    [pytest.param(f, marks=[pytest.mark.slow] if k % 3 else []) for k, f in enumerate(FILES)],
    ids=str,
)
def test_the_commands_of_a_file_are_sound(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # commands name files of the checkout
    monkeypatch.setattr("fedexp.config.frameworks.is_installed", lambda name: True)
    commands = _commands(file)
    assert commands, "the file must open with the command that runs it"
    for words in commands:
        if str(file) in AWAY:
            lines = refused(words, multirun=False)
            assert all("pip install" in line or "FOLDER" in line for line in lines)
            continue
        multirun = words[:1] == ["-m"]
        jobs = plan(words[1:] if multirun else words, multirun=multirun)
        group = file.parent.name
        if group:
            choices = [word for word in words if word.lstrip("+").startswith(f"{group}=")]
            assert file.stem in re.split(r"[=\[\],]", choices[0])
        if group in (*GROUPS, "clients") or file == Path("tracking/wandb.yaml"):
            chosen = asdict(getattr(jobs[0].config, group))
            given = {word.split("=")[0] for word in words}
            kept = {k: v for k, v in _stated(file).items() if f"{group}.{k}" not in given}
            assert kept
            assert {key: chosen[key] for key in kept} == kept


@pytest.mark.parametrize("file", [file for file in ALL if file not in FILES], ids=str)
def test_hydras_own_choices_are_made_by_the_root(file: Path) -> None:
    assert {f"override {file.parent}": file.stem} in _read("config.yaml")["defaults"]


@pytest.mark.parametrize("group", list(GROUPS))
def test_every_page_has_a_file_and_every_file_a_page(group: str) -> None:
    stems = {file.stem for file in FILES if file.parts[0] == group}
    presets = {"lesson"} if group == "partition" else set()
    assert stems - presets == {name for owner, name in PAGES if owner == group}
    assert presets < stems


@pytest.mark.parametrize(("group", "name"), PAGES)
def test_a_file_states_every_option_of_its_page_as_it_is_by_default(group: str, name: str) -> None:
    page = GROUPS[group].get(name)
    assert _stated(f"{group}/{name}.yaml") == asdict(page())


@pytest.mark.parametrize(
    ("preset", "differences"),
    [
        ("lesson", {}),
        ("cross_silo", {"num": 10, "fraction_evaluate": 1.0}),
        ("cross_device", {"num": 100, "fraction_train": 0.1}),
    ],
)
def test_a_preset_of_clients_states_every_option_and_differs_in_few(
    preset: str, differences: dict[str, float]
) -> None:
    assert _stated(f"clients/{preset}.yaml") == {**asdict(ClientsConfig()), **differences}


def test_there_are_no_other_presets_of_clients() -> None:
    stems = {file.stem for file in FILES if file.parts[0] == "clients"}
    assert stems == {"lesson", "cross_silo", "cross_device"}


def test_the_lessons_partition_differs_from_its_page() -> None:
    stated = _stated("partition/lesson.yaml")
    assert {"name": "exclude", **stated} == asdict(LESSON)
    assert compose_config(["partition=lesson"]).partition == LESSON


def test_trackers_have_the_defaults_of_their_options() -> None:
    defaults = asdict(TrackingConfig())
    assert _stated("tracking/wandb.yaml") == {
        **{key: value for key, value in defaults.items() if key != "tensorboard"},
        "wandb": True,
    }
    assert _stated("tracking/tensorboard.yaml") == {"tensorboard": True}
    assert _read("tracking/csv.yaml") is None
    both = compose_config(["tracking=[wandb,tensorboard]"]).tracking
    assert both == TrackingConfig(wandb=True, tensorboard=True)


def test_the_root_states_the_defaults_of_the_schema() -> None:
    root = _stated("config.yaml")
    assert root.pop("hydra")
    assert root.pop("name") == "lesson"  # it names the folder of results
    chosen = {
        next(iter(line)) for line in _read("config.yaml")["defaults"] if isinstance(line, dict)
    }
    fields = {item.name for item in dataclasses.fields(Config)} - {"name"}
    assert set(root) == fields - chosen
    assert root["training"] == asdict(TrainingConfig())
    assert root["stop"] == asdict(StopConfig())
    # What is left to the task is filled in by Config itself.
    assert (root["metrics"], root["objective"]) == ([], "auto")
    assert (Config.__dataclass_fields__["objective"].default, StopConfig().metric) == ("auto",) * 2
    stated = Config(**{k: root[k] for k in root if not isinstance(root[k], dict)})
    assert asdict(stated) == asdict(Config())


def test_a_run_of_nothing_but_defaults_is_the_schemas_on_the_lessons_partition() -> None:
    expected = dataclasses.replace(Config(), name="lesson", partition=LESSON)
    assert compose_config([]) == expected
