"""Which folder a job writes, known before anything starts."""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from pathlib import Path

from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

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
    while holds_run(Path(sweep) / free):
        number += 1
        free = f"{name}-{number}"
    return free


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


def folder_errors(folders: Sequence[Path | None], *, multirun: bool) -> list[str]:
    """Return a line for every folder that two jobs share, or that holds a run already."""
    jobs: dict[Path, list[int]] = defaultdict(list)
    for number, folder in enumerate(folders):
        if folder is not None:
            jobs[folder].append(number)
    option = "hydra.sweep.subdir" if multirun else "hydra.run.dir"
    errors = [
        f"{option}: jobs {', '.join(map(str, numbers))} would all write {folder.name}; a subdir with "
        "${hydra.job.num} gives each a folder of its own"
        for folder, numbers in jobs.items()
        if len(numbers) > 1
    ]
    errors += [
        f"{option}: {folder} holds a run already; choose another folder, or go on with that run by "
        f"fedexp resume {folder}"
        for folder in jobs
        if holds_run(folder)
    ]
    return errors
