"""Code from outside: packages that announce themselves, and what a run made use of.

A script registers its pages before it calls ``fedexp.main()``. A package names a module in the entry
point group ``fedexp.plugins``; importing that module registers its pages. Where it is a package, a folder
``conf`` in it is searched for YAML files.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from fedexp import attacks, metrics
from fedexp.config.schema import GROUPS, Config
from fedexp.core.registry import PluginError, Registry, file_of

GROUP = "fedexp.plugins"

REGISTRIES: dict[str, Registry[Any]] = {
    **GROUPS,
    "metrics": metrics.REGISTRY,
    "attack": attacks.REGISTRY,
}
"""All that code from outside can bring, by what it is called."""


@cache
def load_plugins() -> tuple[EntryPoint, ...]:
    """Import every package that announces itself, once in a process.

    Raises:
        PluginError: If one cannot be imported or registers what it must not, with its name.
    """
    found = tuple(entry_points(group=GROUP))
    for point in found:
        try:
            point.load()
        except PluginError:
            raise
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise PluginError(
                f"the plug-in {point.name} ({_package(point)}) cannot be imported: "
                f"{type(error).__name__}: {reason}; repair or uninstall it"
            ) from error
    return found


def conf_folders() -> list[Path]:
    """Return the folders of YAML files that plug-ins bring along."""
    folders = []
    for point in load_plugins():
        module = sys.modules.get(point.module)
        folders += [Path(path) / "conf" for path in getattr(module, "__path__", [])]
    return [folder for folder in folders if folder.is_dir()]


def outside_pages() -> list[type]:
    """Return every registered class that does not come with fedexp."""
    return [page for registry in REGISTRIES.values() for page in registry.outside()]


def register_again(pages: list[type]) -> None:
    """Register classes that came from another process by value."""
    for page in pages:
        for registry in REGISTRIES.values():
            if issubclass(page, registry.base):
                registry.register(page)


def plugins_in_use(config: Config) -> list[dict[str, Any]]:
    """Return what code from outside a run makes use of: one entry a file.

    Returns:
        ``file``, its ``sha256``, what it ``provides`` to this run, and the ``package`` and ``version``
        that it belongs to, where it is a package's.
    """
    files: dict[str, dict[str, Any]] = {}
    for name, page in _used(config):
        path = file_of(page)
        key = str(path or page.__module__)
        entry = files.setdefault(key, {"file": key, "sha256": _digest(path), "provides": []})
        entry["provides"].append(name)
        entry |= _origin(page)
    return list(files.values())


def strangers_in(config: Config) -> list[str]:
    """Return the choices of a configuration that do not come with fedexp, with their options."""
    return [f"{name} {getattr(config, name.split('=')[0], '')!r}" for name, _ in _used(config)]


def _used(config: Config) -> Iterator[tuple[str, type]]:
    """Yield the choices of a configuration that do not come with fedexp, and their classes."""
    for group in GROUPS:
        chosen = getattr(config, group)
        if not type(chosen).__module__.startswith("fedexp."):
            yield f"{group}={chosen.name}", type(chosen)
    for name in config.measured:
        if not metrics.REGISTRY.is_built_in(name):
            yield f"metrics={name}", metrics.get(name)
    kind = config.clients.byzantine.kind
    if config.clients.byzantine.fraction and not attacks.REGISTRY.is_built_in(kind):
        yield f"clients.byzantine.kind={kind}", attacks.get(kind)


def _digest(path: Path | None) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path and path.is_file() else None


def _origin(page: type) -> dict[str, str]:
    top = page.__module__.partition(".")[0]
    for point in load_plugins():
        if point.module.partition(".")[0] == top and point.dist is not None:
            return {"package": point.dist.name, "version": point.dist.version}
    return {}


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value
