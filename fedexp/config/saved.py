"""Read a run's config.yaml back."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fedexp.config.composing import from_hydra
from fedexp.config.composition import composed_values
from fedexp.config.explain import one_line
from fedexp.config.hydra_internals import writable_schema
from fedexp.config.schema import GROUPS, Config
from fedexp.core.options import ConfigError


def saved_config(folder: Path, overrides: Sequence[str] = ()) -> Config:
    """Return the configuration of a run, with values changed as ``option=value`` says.

    Args:
        folder: The run's, which holds config.yaml.
        overrides: As on the command line, such as ``["rounds=200", "backend=inline"]``.

    Raises:
        ConfigError: If the file is not there or damaged, names a choice that is not known here, or a
            value is not allowed; a line each.
    """
    path = folder / "config.yaml"
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path} cannot be read: {one_line(error)}"]) from error
    if not isinstance(content, dict):
        raise ConfigError([f"{path} holds no configuration"])
    remedy = f"if a script brings it, go on by that: python SCRIPT.py resume {path.parent}"
    return config_from(_changed(content, overrides), str(path), remedy)


def config_from(content: Mapping[str, Any], where: str, remedy: str) -> Config:
    """Return the configuration that plain values make up.

    Args:
        content: Options as config.yaml has them.
        where: What they stand in, for errors.
        remedy: What is to be done where a choice is not known.

    Raises:
        ConfigError: If a choice is not known, or a value is not allowed; a line each.
    """
    try:
        node = OmegaConf.merge(_schema(content, where, remedy), dict(content))
    except OmegaConfBaseException as error:
        raise ConfigError([f"{where}: {one_line(error)}"]) from error
    assert isinstance(node, DictConfig)
    return from_hydra(node)


def _changed(content: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return a configuration with the values that overrides give."""
    if not overrides:
        return content
    # Which options a group has depends on what was chosen of it.
    named = {line.partition(".")[0] for line in overrides} & set(GROUPS)
    chosen = [f"{group}={(content.get(group) or {}).get('name')}" for group in sorted(named)]
    composed, changed = composed_values([*chosen, *overrides]), copy.deepcopy(content)
    for option in sorted(
        line.partition("=")[0] for line in overrides
    ):  # a choice before its options
        source, target = composed, changed
        *above, last = option.split(".")
        for key in above:
            source, target = source[key], target.setdefault(key, {})
        target[last] = source[last]
    return changed


def _schema(content: Mapping[str, Any], where: str, remedy: str) -> DictConfig:
    """Return the schema of the choices that a configuration names."""
    schema, errors = writable_schema(Config), []
    for group, registry in GROUPS.items():
        name = (content.get(group) or {}).get("name")
        if name in registry.choices():
            schema[group] = writable_schema(registry.get(str(name)))
        else:
            errors.append(f"{where}: {group}={name} is not known here; {remedy}")
    if errors:
        raise ConfigError(errors)
    return schema
