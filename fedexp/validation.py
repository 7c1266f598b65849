"""Ranges and rules of a configuration: every mistake at once, a line each."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from fedexp.config import SCHEMAS, Config
from fedexp.config_data import MlpModel
from fedexp.validation_partition import partition_errors


def validate(config: Config) -> list[str]:
    """Return every mistake in a configuration, one line each; an empty list means it can run."""
    errors = list(_range_errors(config, ""))
    for group in ("dataset", "partition", "model", "strategy", "backend", "tracking"):
        chosen, entries = getattr(config, group), SCHEMAS[group]
        if chosen.name not in entries:
            errors.append(f"{group}.name must be one of {', '.join(entries)}, got {chosen.name!r}")
        elif entries[chosen.name] is not type(chosen):
            errors.append(
                f"{group}.name must be what was chosen, got {chosen.name!r}; choose it by "
                f"{group}={chosen.name}"
            )
    # Rules that relate options to each other only make sense once each is sound on its own.
    return errors or list(_relation_errors(config))


def _range_errors(node: Any, prefix: str) -> Iterator[str]:
    for item in dataclasses.fields(node):
        value, path = getattr(node, item.name), f"{prefix}{item.name}"
        if dataclasses.is_dataclass(value):
            yield from _range_errors(value, f"{path}.")
            continue
        choices = item.metadata.get("choices", ())
        if choices and value not in choices:
            yield f"{path} must be one of {', '.join(choices)}, got {value!r}"
        if isinstance(value, float) and not math.isfinite(value):
            yield f"{path} must be a finite number, got {value}"
        elif value is not None:
            for sign, bound in item.metadata.get("bounds", ()):
                if not _HOLDS[sign](value, bound):
                    yield f"{path} must be {sign} {bound}, got {value}"


_HOLDS = {
    ">": lambda value, bound: value > bound,
    ">=": lambda value, bound: value >= bound,
    "<": lambda value, bound: value < bound,
    "<=": lambda value, bound: value <= bound,
}


def _relation_errors(config: Config) -> Iterator[str]:
    spec, clients = config.dataset.spec, config.clients
    if config.name in ("", ".", "..") or "/" in config.name:
        yield f"name must be a word without '/': it names a folder of results/, got {config.name!r}"
    if clients.num > spec.num_train:
        yield (
            f"clients.num must be <= {spec.num_train}, the training images of dataset="
            f"{config.dataset.name}, got {clients.num}"
        )
    yield from partition_errors(config)
    if isinstance(config.model, MlpModel) and any(width < 1 for width in config.model.hidden):
        yield f"model.hidden must hold widths >= 1, got {list(config.model.hidden)}"
