"""Read a run's config.yaml back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fedexp.config.composition import from_hydra
from fedexp.config.explain import one_line
from fedexp.config.hydra_internals import writable_schema
from fedexp.config.schema import GROUPS, Config
from fedexp.core.options import ConfigError


def saved_config(folder: Path, overrides: Sequence[str] = ()) -> Config:
    """Return the configuration of a run, with values changed as ``option=value`` says.

    Args:
        folder: The run's, which holds config.yaml.
        overrides: Such as ``["rounds=200"]``.

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
    try:
        changes = OmegaConf.from_dotlist(list(overrides))
        node = OmegaConf.merge(_schema(content, path), content, changes)
    except OmegaConfBaseException as error:
        raise ConfigError([f"{path}: {one_line(error)}"]) from error
    assert isinstance(node, DictConfig)
    return from_hydra(node)


def _schema(content: Mapping[str, Any], path: Path) -> DictConfig:
    """Return the schema of the choices that a configuration names."""
    schema, errors = writable_schema(Config), []
    for group, registry in GROUPS.items():
        name = (content.get(group) or {}).get("name")
        if name in registry.choices():
            schema[group] = writable_schema(registry.get(str(name)))
        else:
            errors.append(f"{path}: {group}={name} is not known here")
    if errors:
        raise ConfigError(errors)
    return schema
