"""What the numbers of a run depend on: a run goes on only where all of that is as it was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from fedexp.config.plugins import plugins_in_use
from fedexp.config.schema import Config
from fedexp.data.loading import digest
from fedexp.tracking.environment import packages

FREE = (
    "rounds",
    "isolated_rounds",
    "backend",
    "tracking",
    "checkpoint",
    "name",
    "dataset.root",
    "dataset.path",
    "save_every",
)
"""Options that may differ from before: they change no number of the rounds that are done."""

BOUND = ("backend.threads", "backend.device", "backend.portable", "backend.stack")
"""Those among them that may not."""

_PACKAGES = ("fedexp", "flwr", "torch", "torchvision", "numpy")


def is_free(option: str) -> bool:
    """Say whether a run may go on with another value of an option."""
    free = any(option == name or option.startswith(f"{name}.") for name in FREE)
    return free and option not in BOUND


def identity(config: Config) -> dict[str, Any]:
    """Return what the numbers of a run depend on: options, versions, device, code from outside, data."""
    from fedexp.training.device import pick_device

    further = config.model.packages
    versions = packages(further)
    built_from = config.model.files_sha256()
    return {
        "options": {k: v for k, v in _flat(asdict(config), "") if not is_free(k)},
        "packages": {name: versions[name] for name in (*_PACKAGES, *further)},
        "device": pick_device(config.backend).type,
        "plugins": {", ".join(e["provides"]): e["sha256"] for e in plugins_in_use(config)},
        "data": digest(config.dataset),
        **({} if built_from is None else {"model": built_from}),
    }


def differences(before: Mapping[str, Any], config: Config) -> list[str]:
    """Return a line for everything that is not as it was when a run was begun.

    Args:
        before: What :func:`identity` returned then.
        config: The configuration that the run would go on with.
    """
    now = identity(config)
    lines = [
        f"{option} was {before['options'][option]} and is {value} in config.yaml now: set it back"
        for option, value in now["options"].items()
        if option in before["options"] and before["options"][option] != value
    ]
    lines += [
        f"{name} was {before['packages'].get(name)} and is {version} now: install the version of before"
        for name, version in now["packages"].items()
        if before["packages"].get(name) != version
    ]
    if before["device"] != now["device"]:
        lines.append(
            f"it computed on {before['device']} and would compute on {now['device']} now: use a machine "
            "of the same kind, or another backend.num_gpus_per_worker"
        )
    for provides, sha256 in now["plugins"].items():
        if before["plugins"].get(provides) != sha256:
            lines.append(f"the file that provides {provides} was changed since: restore it")
    if before["data"] != now["data"]:
        lines.append(
            f"dataset={config.dataset.name} holds other examples than before: restore its files"
        )
    if before.get("model") != now.get("model"):
        lines.append(
            f"model={config.model.name} is built from other files than before: restore them"
        )
    return lines


def _flat(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", list(value) if isinstance(value, tuple) else value
