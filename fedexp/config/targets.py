"""What Hydra's own part of a configuration may call: Hydra runs whatever a ``_target_`` in it names.

A command line is copied, and a saved configuration is somebody else's. So what is called must belong to
fedexp, to Hydra or to an installed plug-in, or stand in a file of a folder that ``--config-dir`` names.
The file that the command begins with (``--config-name``) does not count: it may be a run's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fedexp.config.plugins import load_plugins
from fedexp.config.source import Source

SECTIONS = ("callbacks", "launcher", "sweeper", "job_logging", "hydra_logging")
"""Parts of ``hydra`` that Hydra, or Python's logging for it, makes objects of."""

CALLED = ("_target_", "()", "class", "factory", "queue", "listener")
"""Keys whose value names what is called; all but the first are Python's logging's."""

INSTALLED = (
    "fedexp.",
    "hydra._internal.core_plugins.",
    "hydra.experimental.",
    "hydra_plugins.",
    "optuna.samplers.",
    "logging.",
    "colorlog.",
)
NEVER = ("logging.config.",)
"""It reads files of its own and evaluates what stands in them."""

STREAMS = ("ext://sys.stdout", "ext://sys.stderr")


def target_errors(node: DictConfig, begin: Source) -> list[str]:
    """Return a line for everything that Hydra would call and must not.

    Args:
        node: A composed configuration, Hydra's part included.
        begin: Where it comes from.
    """
    found: list[tuple[str, str]] = []
    for section in SECTIONS:
        part = OmegaConf.select(node, f"hydra.{section}", throw_on_resolution_failure=False)
        found += [item for item in _called(part, f"hydra.{section}") if not _is_installed(item[1])]
    own = set(_own(begin)) if found else set()
    return [
        f"{option}={value}: Hydra would run this code; name an installed Hydra plug-in, or put it into a "
        "YAML file of a --config-dir"
        for option, value in found
        if value not in own
    ]


def _called(node: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield option and value of all that names something to call or import."""
    if isinstance(node, ListConfig):
        for number in range(len(node)):
            yield from _value(node, number, f"{path}.{number}")
    elif isinstance(node, DictConfig):
        for key in node:
            yield from _value(node, key, f"{path}.{key!s}")


def _value(node: Any, key: Any, path: str) -> Iterator[tuple[str, str]]:
    try:
        value = node[key]
    except OmegaConfBaseException:  # known only in the job, such as its folder
        if key in CALLED:
            yield path, "???"
        return
    if isinstance(value, str) and (key in CALLED or value.startswith("ext://")):
        yield path, value
    else:
        yield from _called(value, path)


def _is_installed(target: str) -> bool:
    packages = tuple(f"{point.module.partition('.')[0]}." for point in load_plugins())
    trusted = target.startswith((*INSTALLED, *packages)) and not target.startswith(NEVER)
    return trusted or target in STREAMS


def _own(begin: Source) -> Iterator[str]:
    """Yield every word of the YAML files in the folders that the user named."""
    for folder in begin.folders:
        for file in sorted(
            {*folder.rglob("*.yaml"), *folder.rglob("*.yml")} - {begin.file or Path()}
        ):
            try:
                yield from _words(yaml.safe_load(file.read_text()))
            except (OSError, UnicodeDecodeError, yaml.YAMLError):
                continue  # Hydra complains where it needs the file


def _words(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, dict | list):
        values: Iterable[Any] = content.values() if isinstance(content, dict) else content
        for value in values:
            yield from _words(value)
