"""The corners of Hydra and OmegaConf that are not their public interface.

``tests/config/test_hydra_internals.py`` says what each is needed for. Both are capped at the versions
that they were tried with (pyproject.toml).
"""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from omegaconf import DictConfig, ListConfig, OmegaConf


def argument_parser() -> ArgumentParser:
    """Return the parser of Hydra's own flags, such as ``-m`` and ``--config-dir``."""
    return get_args_parser()


def split_into_jobs(overrides: list[Any]) -> list[list[str]]:
    """Return the overrides of every job that Hydra's own sweeper would run, in its order."""
    (jobs,) = BasicSweeper.split_arguments(overrides, None)
    return [list(job) for job in jobs]


def is_basic_sweeper(hydra: Any) -> bool:
    """Say whether Hydra's own sweeper runs the jobs: one that is told them all beforehand."""
    return str(hydra.sweeper._target_).endswith("BasicSweeper")


def is_basic_launcher(hydra: Any) -> bool:
    """Say whether Hydra's own launcher runs the jobs: one after another."""
    return str(hydra.launcher._target_).endswith("BasicLauncher")


def writable_schema(entry: type) -> DictConfig:
    """Return a dataclass as a node that overrides can change, though the dataclass is frozen."""
    node = OmegaConf.structured(entry)
    OmegaConf.set_readonly(node, None)
    for key in node:
        child = node._get_node(key)
        if isinstance(child, DictConfig | ListConfig):
            OmegaConf.set_readonly(child, None)
            _open_mappings(child)
    assert isinstance(node, DictConfig)
    return node


def _open_mappings(node: Any) -> None:
    """Let a mapping of any key take any key; validation knows which are meant."""
    if OmegaConf.get_type(node) is dict:
        OmegaConf.set_struct(node, False)
    elif isinstance(node, DictConfig) and not node._is_missing() and not node._is_none():
        for key in node:
            child = node._get_node(key)
            if isinstance(child, DictConfig):
                _open_mappings(child)


def child_of(node: DictConfig, key: str) -> DictConfig | None:
    """Return a filled mapping below a node; None for anything else."""
    child = node._get_node(key)
    filled = isinstance(child, DictConfig) and not child._is_none() and not child._is_missing()
    return child if filled else None  # type: ignore[return-value]
