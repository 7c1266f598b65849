"""A configuration as one row of names and values, which is all that a Flower app's own can be."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from fedexp.config.saved import config_from
from fedexp.config.schema import Config
from fedexp.core.options import ConfigError

Value = bool | int | float | str


def flat(config: Config) -> dict[str, Value]:
    """Return every option: ``strategy.eta`` -> its value; what is no number and no word as YAML."""
    return {name: _written(value) for name, value in _options(config)}


def from_flat(options: Mapping[str, Value]) -> Config:
    """Return the configuration that :func:`flat` wrote down, with whatever was changed in it since.

    Raises:
        ConfigError: If a choice is not known here, or a value is not allowed; a line each.
    """
    content: dict[str, Any] = {}
    for name, value in options.items():
        *above, last = name.split(".")
        inner = content
        for key in above:
            inner = inner.setdefault(key, {})
        inner[last] = _read(name, value)
    return config_from(content, "the run's configuration", "install on this machine what brings it")


def _options(page: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    for field in dataclasses.fields(page):
        value = getattr(page, field.name)
        if dataclasses.is_dataclass(value):
            yield from _options(value, f"{above}{field.name}.")
        else:
            yield f"{above}{field.name}", value


def _written(value: Any) -> Value:
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, str) and _is_plain(value):
        return value
    return json.dumps(value)


def _is_plain(text: str) -> bool:
    """Say whether YAML reads a word as that word."""
    try:
        return bool(yaml.safe_load(text) == text)
    except yaml.YAMLError:
        return False


def _read(name: str, value: Value) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError([f"{name} must be a value as YAML has it, got {value!r}"]) from error
