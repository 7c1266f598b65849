"""Files from outside, imported in this process and forgotten afterwards."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest
from hydra.core.config_store import ConfigStore

from fedexp.config.plugins import REGISTRIES


@contextmanager
def bringing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], ModuleType]]:
    """Give a function that imports a file; what it registers is taken away again at the end."""
    before = {group: set(registry.choices()) for group, registry in REGISTRIES.items()}

    def bring(path: Path) -> ModuleType:
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, path.stem, module)
        spec.loader.exec_module(module)
        return module

    try:
        yield bring
    finally:
        store = ConfigStore.instance()
        for group, registry in REGISTRIES.items():
            for name in set(registry.choices()) - before[group]:
                registry.forget(name)
                if group in store.repo:
                    store.repo[group].pop(f"{name}.yaml", None)
