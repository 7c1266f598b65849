"""Which folder a job writes, known before anything starts."""

from __future__ import annotations

import os
import secrets
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from pathlib import Path

import yaml
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from fedexp.config.schema import Config, config_bytes
from fedexp.core.commands import command
from fedexp.core.files import holds_run


def register_resolvers() -> None:
    """Give Hydra's YAML ``fedexp_stamp``, and ``fedexp_job`` of a sweep's folder and a name."""
    # Hydra's config caches the answers, so that every use of one in a job is the same.
    for name, resolver in (("fedexp_stamp", _stamp_of_command), ("fedexp_job", free_name)):
        OmegaConf.register_new_resolver(name, resolver, use_cache=True, replace=True)


def stamp() -> str:
    """Return the name of a new run's folder: date, time and four random hexadecimal digits."""
    # The random end keeps apart two runs that start in the same second.
    return f"{datetime.now():%Y-%m-%d_%H-%M-%S}-{secrets.token_hex(2)}"


@cache
def _stamp_of_command() -> str:
    """Return the stamp of this process's command: known before Hydra composes it once more."""
    return stamp()


def free_name(sweep: str, name: str) -> str:
    """Return a job's name in a sweep's folder: with a number behind it where a run has it already."""
    number, free = 1, name
    while _is_taken(Path(sweep) / free):
        number += 1
        free = f"{name}-{number}"
    return free


def _is_taken(folder: Path) -> bool:
    """Say whether a folder belongs to a run already, even to one that was cut off as it began."""
    return holds_run(folder) or os.path.lexists(folder / "config.yaml")


def folder_of(node: DictConfig, number: int | None) -> Path | None:
    """Return the folder of a composed job; None where only Hydra will know.

    Args:
        node: The composed configuration, Hydra's part included.
        number: Which job of a multirun it is; None for a single run.
    """
    with open_dict(node):
        if number is not None:
            node.hydra.job.num = number
        try:
            if number is None:
                return Path(node.hydra.run.dir)
            return Path(node.hydra.sweep.dir) / str(node.hydra.sweep.subdir)
        except (OmegaConfBaseException, TypeError):
            return None


def sweep_of(node: DictConfig) -> Path | None:
    """Return the folder of a composed multirun; None where only Hydra will know."""
    try:
        return Path(node.hydra.sweep.dir)
    except (OmegaConfBaseException, TypeError):
        return None


SWEEP_DIR = "results/${name}/${fedexp_stamp:}"
"""Where multiruns go unless they are told; conf/config.yaml says the same."""


def pinned(node: DictConfig, sweep: Path | None) -> list[str]:
    """Have a job write into the folder of its multirun, whatever the job is called.

    Returns:
        A line if the job was to have a folder of the multirun's kind for itself.
    """
    if sweep is None or (own := sweep_of(node)) is None or own == sweep:
        return []
    told = str(OmegaConf.to_container(node.hydra.sweep)["dir"])  # type: ignore[index, call-overload]
    if told != SWEEP_DIR:
        return [
            f"hydra.sweep.dir={told}: all jobs of a multirun share one folder, so that they can be "
            "compared; what differs between them belongs into hydra.sweep.subdir"
        ]
    with open_dict(node):
        node.hydra.sweep.dir = str(sweep)
    return []


def moved_errors(node: DictConfig, config: Config) -> list[str]:
    """Return a line for every folder that a job would look for in a folder of its own.

    Args:
        node: The composed configuration, Hydra's part included.
        config: What it says.
    """
    if not OmegaConf.select(node, "hydra.job.chdir"):
        return []
    dataset, model = config.dataset, config.model
    told = {f"dataset.{name}": getattr(dataset, name) for name in dataset.folders}
    told |= {f"model.{name}": getattr(model, name) for name in model.folders}
    return [
        f"{option}={path}: with hydra.job.chdir a job runs in a folder of its own; name the whole path, "
        f"{Path(path).absolute()}"
        for option, path in told.items()
        if path and not Path(path).is_absolute()
    ]


def folder_errors(
    folders: Sequence[Path | None], *, multirun: bool, configs: Sequence[Config] = ()
) -> list[str]:
    """Return a line for every folder that two jobs share, or that belongs to another run.

    Args:
        folders: The jobs'; None where only Hydra will know.
        multirun: Whether they are jobs of one.
        configs: The jobs' configurations, where a folder that was only begun is to be theirs.
    """
    jobs: dict[Path, list[int]] = defaultdict(list)
    for number, folder in enumerate(folders):
        if folder is not None:
            jobs[Path(os.path.normpath(folder))].append(number)
    option = "hydra.sweep.subdir" if multirun else "hydra.run.dir"
    errors = [
        f"{option}: jobs {', '.join(map(str, numbers))} would all write {folder.name}; a subdir with "
        "${hydra.job.num} gives each a folder of its own"
        for folder, numbers in jobs.items()
        if len(numbers) > 1
    ]
    for folder, numbers in jobs.items():
        if holds_run(folder):
            errors.append(
                f"{option}: {folder} holds a run already; choose another folder, or go on with that run "
                f"by {command('resume', str(folder))}"
            )
        elif configs and _begun_otherwise(folder, configs[numbers[0]]):
            errors.append(
                f"{option}: {folder} holds another configuration (config.yaml); choose another folder"
            )
    return errors


def _begun_otherwise(folder: Path, config: Config) -> bool:
    """Say whether a folder has the configuration of something else; a preview may come first."""
    path = folder / "config.yaml"
    if not os.path.lexists(path):
        return False
    try:
        found = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError):
        return True
    own = yaml.safe_load(config_bytes(config))
    return not isinstance(found, dict) or {**found, "mode": ""} != {**own, "mode": ""}
