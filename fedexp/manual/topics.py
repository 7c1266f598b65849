"""What ``fedexp help`` and ``docs/reference/`` are about: groups, choices and options."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from fedexp.config import plugins, schema
from fedexp.config.clients import ByzantineConfig, ClientsConfig
from fedexp.config.source import conf_dir
from fedexp.config.tracking import TrackingConfig
from fedexp.config.training import TrainingConfig
from fedexp.core.describing import Option, options, summary, written
from fedexp.core.registry import file_of

GROUPS: dict[str, str] = {
    "strategy": "How the server combines what clients send.",
    "dataset": "What is learned.",
    "partition": "Which client holds which training examples.",
    "model": "The network.",
    "backend": "Where clients run.",
    "metrics": "What is measured beside accuracy and loss: metrics=[NAME,...].",
    "attack": "What faulty clients do: clients.byzantine.kind=NAME.",
    "clients": "How many clients there are, and what goes wrong with them.",
    "tracking": "Where a run's numbers go beside its folder.",
    "experiment": "Presets that set several options at once.",
    "debug": "Presets for trying out.",
}
"""Group -> what it is about. What a package adds is a choice of one of them."""

SECTIONS: dict[str, tuple[type, str]] = {
    "run": (schema.Config, ""),
    "clients": (ClientsConfig, "clients."),
    "clients.byzantine": (ByzantineConfig, "clients.byzantine."),
    "training": (TrainingConfig, "training."),
    "stop": (schema.StopConfig, "stop."),
    "checkpoint": (schema.CheckpointConfig, "checkpoint."),
    "tracking": (TrackingConfig, "tracking."),
}
"""Topic -> the class of options that belong to no choice, and what stands before their names."""


class Choice(NamedTuple):
    """One of a group's choices.

    Attributes:
        group: Its group.
        name: Its name.
        about: What it is, in a line.
        page: Its class; None for a preset, which is a YAML file.
        file: Where it is written, where that is known.
    """

    group: str
    name: str
    about: str
    page: type | None
    file: Path | None

    @property
    def chosen_by(self) -> str:
        """What chooses it on the command line."""
        option = {"attack": "clients.byzantine.kind"}.get(self.group, self.group)
        return f"{option}=[{self.name}]" if self.group == "metrics" else f"{option}={self.name}"


def section(topic: str) -> list[Option]:
    """Return the options of one of :data:`SECTIONS`, with the values that ``fedexp`` alone gives them."""
    kind, prefix = SECTIONS[topic]
    return [_as_it_stands(option) for option in options(kind, prefix)]


def choice_options(choice: Choice) -> list[Option]:
    """Return the options of a choice, under the names that they are set by."""
    if choice.page is None:
        return []
    if choice.group == "attack":
        own = options(choice.page, "clients.byzantine.options.", leave_out=("name", "scale"))
        return [*(o for o in section("clients.byzantine") if o.name.endswith(".scale")), *own]
    return options(choice.page, f"{choice.group}.", leave_out=("name",))


def choices(group: str, config_dir: str | None = None) -> list[Choice]:
    """Return the choices of a group: fedexp's own, those of packages and of the script that runs.

    Args:
        group: One of :data:`GROUPS`.
        config_dir: A further folder of YAML files.
    """
    registry = plugins.REGISTRIES.get(group)
    pages = {} if registry is None else registry.pages()
    found = [
        Choice(group, name, summary(registry, name), page, file_of(page))
        for name, page in pages.items()
        if registry is not None
    ]
    folders = [conf_dir(), *plugins.conf_folders(), *([Path(config_dir)] if config_dir else [])]
    files = {path.stem: path for folder in folders for path in (folder / group).glob("*.yaml")}
    presets = sorted((name, path) for name, path in files.items() if name not in pages)
    return [
        *found,
        *(Choice(group, name, first_sentence(path), None, path) for name, path in presets),
    ]


def first_sentence(path: Path) -> str:
    """Return the first sentence of the comments on top of a preset."""
    return re.split(r"(?<=[.?!])(?<!al\.) (?=[A-Z])", parted(path)[0])[0]


def parted(path: Path) -> tuple[str, list[str], str]:
    """Return a preset's comments on top as prose, the commands among them, and the rest of the file."""
    prose, commands = [], []
    lines = path.read_text(encoding="utf-8").splitlines()
    while lines and lines[0].startswith("#"):
        line = lines.pop(0).lstrip("# ").strip()
        if line.startswith("fedexp "):
            commands.append(line)
        elif not line.startswith("@package"):
            prose.append(line)
    return " ".join(prose), commands, "\n".join(lines).strip()


@cache
def standing() -> dict[str, Any]:
    """Return what ``fedexp`` alone begins with: the values, and what is chosen in each group."""
    content: dict[str, Any] = yaml.safe_load((conf_dir() / "config.yaml").read_text())
    chosen = [line for line in content["defaults"] if isinstance(line, dict)]
    return content | {group: name for line in chosen for group, name in line.items()}


def _as_it_stands(option: Option) -> Option:
    value: Any = standing()
    for part in option.name.split("."):
        if not isinstance(value, dict) or part not in value:
            return option
        value = value[part]
    return replace(option, default=written(value))
