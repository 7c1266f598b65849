"""Hydra composes once for every distinct choice of groups; values are then set on copies of that.

A sweep of 200 seeds would otherwise read the same thirty files, and merge them, 200 times over, and once
more wherever Hydra looks at its jobs. Which files are merged follows from the choices of groups alone, so
what a composition gives is the same to the last value.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from hydra._internal import config_loader_impl
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository
from hydra._internal.defaults_list import DefaultsList
from hydra.core.default_element import ResultDefault
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

_at_work: list[_Memory] = []


@contextmanager
def composing_once() -> Iterator[None]:
    """Keep what Hydra has composed until the block ends.

    Files are read once, too: what was checked is what runs, whatever becomes of a file meanwhile.
    """
    if _at_work:
        yield
        return
    memory = _Memory()
    loader: Any = ConfigLoaderImpl
    module: Any = config_loader_impl
    before = (
        loader._parse_overrides_and_create_caching_repo,
        loader._compose_config_from_defaults_list,
        module.create_defaults_list,
    )
    loader._parse_overrides_and_create_caching_repo = lambda *given: memory.opened(*given)
    loader._compose_config_from_defaults_list = lambda own, defaults, repo: memory.merged(
        own, defaults, repo
    )
    module.create_defaults_list = memory.listed
    _at_work.append(memory)
    try:
        yield
    finally:
        _at_work.clear()
        (
            loader._parse_overrides_and_create_caching_repo,
            loader._compose_config_from_defaults_list,
            module.create_defaults_list,
        ) = before


class _Memory:
    """What of a composition depends on the choices of groups alone."""

    def __init__(self) -> None:
        loader: Any = ConfigLoaderImpl
        module: Any = config_loader_impl
        self._open: Callable[..., Any] = loader._parse_overrides_and_create_caching_repo
        self._merge: Callable[..., DictConfig] = loader._compose_config_from_defaults_list
        self._list: Callable[..., DefaultsList] = module.create_defaults_list
        self._files: dict[Any, CachingConfigRepository] = {}
        self._lists: dict[Any, DefaultsList] = {}
        self._nodes: dict[Any, DictConfig] = {}
        self._groups: dict[Any, bool] = {}

    def opened(
        self, loader: ConfigLoaderImpl, config_name: str | None, overrides: list[str]
    ) -> tuple[list[Override], CachingConfigRepository]:
        """Return the parsed overrides, and the files that Hydra searches, each read once."""
        parsed = OverridesParser.create().parse_overrides(overrides)
        elsewhere = [
            str(line.input_line) for line in parsed if line.get_key_element() == "hydra.searchpath"
        ]
        path = [(part.provider, part.path) for part in loader.get_search_path().get_path()]
        key = (config_name, *path, *elsewhere)
        if key not in self._files:
            _, self._files[key] = self._open(loader, config_name, elsewhere)
        return parsed, self._files[key]

    def listed(
        self,
        repo: CachingConfigRepository,
        config_name: str | None,
        overrides_list: list[Override],
        prepend_hydra: bool,
        skip_missing: bool,
    ) -> DefaultsList:
        """Return which files are merged, and the values that are set on top of them."""
        values = [line for line in overrides_list if self._is_value(repo, line)]
        choices = [line for line in overrides_list if not self._is_value(repo, line)]
        lines = tuple(line.input_line for line in choices)
        key = (id(repo), config_name, prepend_hydra, skip_missing, lines)
        if key not in self._lists:
            self._lists[key] = self._list(repo, config_name, choices, prepend_hydra, skip_missing)
        return replace(self._lists[key], config_overrides=values)

    def merged(
        self,
        loader: ConfigLoaderImpl,
        defaults: Sequence[ResultDefault],
        repo: CachingConfigRepository,
    ) -> DictConfig:
        """Return what files merge to: a copy, to be changed at will."""
        key = (id(repo), *((d.config_path, d.package, d.is_self, d.primary) for d in defaults))
        if key not in self._nodes:
            # Merging takes nodes out of what was read, and changes them.
            reading = SimpleNamespace(
                load_config=lambda config_path: copy.deepcopy(repo.load_config(config_path)),
                get_schema_source=repo.get_schema_source,
            )
            self._nodes[key] = self._merge(loader, defaults, reading)
        return copy.deepcopy(self._nodes[key])

    def _is_value(self, repo: CachingConfigRepository, line: Override) -> bool:
        """Say whether Hydra would set an override on top, rather than choose a file by it."""
        if line.is_sweep_override():
            return False
        key = (id(repo), line.key_or_group)
        if key not in self._groups:
            self._groups[key] = repo.group_exists(line.key_or_group)
        return isinstance(line.value(), dict) or not self._groups[key]
