"""Composed once or every time: the same configuration, to the type and flag of each node."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from omegaconf import DictConfig, OmegaConf

from fedexp.config.composing import register
from fedexp.config.composition import plan
from fedexp.config.hydra_memory import composing_once
from fedexp.config.source import conf_dir, source

CASES = [
    ["seed=1"],
    ["strategy=fedadam", "strategy.eta=0.3", "seed=2"],
    ["experiment=niid_fmnist", "training={batch_size: 3}", "seed=1"],
    ["+clients.byzantine.options.z=3", "hydra.run.dir=x", "+hydra.job.env_set.A=3"],
    ["strategy=fedadam", "strategy.eta=0.4"],
]


def _nodes(node: Any, path: str = "") -> Iterator[tuple[Any, ...]]:
    told = node._metadata
    kind = getattr(told, "object_type", None)
    yield path, type(node), told.ref_type, kind, str(told.flags), told.optional
    if isinstance(node, DictConfig) and not node._is_none() and not node._is_missing():
        for key in node:
            yield from _nodes(node._get_node(key), f"{path}.{key!s}")


def _composed(lines: list[str]) -> tuple[str, list[tuple[Any, ...]]]:
    with initialize_config_dir(config_dir=str(conf_dir()), version_base="1.3"):
        node = compose("config", overrides=lines, return_hydra_config=True)
    return OmegaConf.to_yaml(node), list(_nodes(node))


@pytest.mark.slow
def test_what_is_remembered_is_what_hydra_composes() -> None:
    begin = source()
    register()
    begin.register()
    plain = [_composed(lines) for lines in CASES]
    with composing_once():
        assert [_composed(lines) for lines in CASES] == plain
        assert [_composed(lines) for lines in reversed(CASES)] == plain[::-1]


def test_a_sweep_is_composed_once_for_every_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    merged = []
    loader: Any = ConfigLoaderImpl
    before = loader._compose_config_from_defaults_list

    def counted(own: Any, defaults: Any, repo: Any) -> DictConfig:
        merged.append(defaults)
        found: DictConfig = before(own, defaults, repo)
        return found

    monkeypatch.setattr(loader, "_compose_config_from_defaults_list", counted)
    jobs = plan(["strategy=fedavg,local_only", "seed=range(0,6)", "rounds=1"], multirun=True)
    assert [(job.config.strategy.name, job.config.seed) for job in jobs] == [
        (strategy, seed) for strategy in ("fedavg", "local_only") for seed in range(6)
    ]
    assert len(merged) == 2
    assert loader._compose_config_from_defaults_list is counted  # nothing of it stays
