"""What a run came from: command, versions, machine, commit, code from outside."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fedexp.config.plugins import plugins_in_use
from fedexp.core.files import without_secrets
from fedexp.federation.events import RunInfo

PACKAGES = ("fedexp", "flwr", "ray", "torch", "torchvision", "numpy", "hydra-core", "omegaconf")


def environment(run: RunInfo) -> dict[str, Any]:
    """Return what stands in environment.json."""
    return {
        "command": [Path(sys.argv[0]).name, *map(without_secrets, sys.argv[1:])],
        "overrides": [without_secrets(override) for override in run.overrides],
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "cpus": os.cpu_count(),
        "cpu_capability": _cpu_capability(),
        "packages": packages(run.config.model.packages),
        "plugins": plugins_in_use(run.config),
        **_checkout(),
        "seed": run.config.seed,
    }


def _cpu_capability() -> str:
    """Return the instructions that torch computes with, such as AVX2; the last bits depend on it."""
    import torch

    return torch.backends.cpu.get_cpu_capability()


def packages(further: Sequence[str] = ()) -> dict[str, str]:
    """Return the versions of the packages that results may depend on.

    Args:
        further: Those that a model's framework consists of.
    """
    return {**_versions(), **{name: version(name) for name in further}}


@cache
def _versions() -> dict[str, str]:
    return {name: version(name) for name in PACKAGES}


def _checkout() -> dict[str, str | bool | None]:
    """Return the commit that the code is of, and whether it was changed since; None if installed.

    A package that was installed below some other repository is not of that repository's commit.
    """
    if _git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return {"git_commit": None, "git_dirty": None}
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return {
        "git_commit": _git("rev-parse", "HEAD"),
        "git_dirty": None if changes is None else bool(changes),
    }


def _git(*command: str) -> str | None:
    """Ask git about the checkout that the code runs from; None where there is no git or checkout."""
    here = Path(__file__).parent
    try:
        answer = subprocess.run(
            ["git", "-C", str(here), *command], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
