"""What fedexp needs of Hydra and OmegaConf that is not their public interface."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fedexp.config.hydra_internals import (
    argument_parser,
    child_of,
    is_basic_launcher,
    is_basic_sweeper,
    split_into_jobs,
    writable_schema,
)


@dataclass(frozen=True)
class Inner:
    depth: int = 1
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outer:
    rate: float = 0.5
    widths: list[int] = field(default_factory=lambda: [1])
    inner: Inner = field(default_factory=Inner)
    maybe: Inner | None = None


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-m", "seed=0,1"], {"multirun": True, "overrides": ["seed=0,1"], "config_dir": None}),
        (["--config-dir", "mine", "rounds=1"], {"config_dir": "mine", "overrides": ["rounds=1"]}),
        (["-cd", "mine"], {"config_dir": "mine", "multirun": False}),
        (["--cfg", "job"], {"cfg": "job"}),
        (["--help"], {"help": True}),
        (["--hydra-help"], {"hydra_help": True}),
        (["--info"], {"info": "all"}),
        (["--shell-completion"], {"shell_completion": True}),
        ([], {"help": False, "hydra_help": False, "cfg": None, "info": None}),
    ],
)
def test_hydras_flags_are_told_from_overrides(words: list[str], expected: dict[str, Any]) -> None:
    found: Namespace = argument_parser().parse_args(words)
    assert {name: getattr(found, name) for name in expected} == expected


def test_jobs_are_those_of_hydras_own_sweeper_in_its_order() -> None:
    parser = OverridesParser.create()
    overrides = parser.parse_overrides(["a=1,2", "b=range(0,2)", "c=x", "d=choice(u,v)"])
    assert split_into_jobs(overrides) == [
        [f"a={a}", f"b={b}", "c=x", f"d={d}"] for a in (1, 2) for b in (0, 1) for d in "uv"
    ]


@pytest.mark.parametrize(
    ("sweeper", "launcher", "basic"),
    [
        (
            "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
            "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
            True,
        ),
        (
            "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper",
            "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher",
            False,
        ),
    ],
)
def test_hydras_own_sweeper_and_launcher_are_known(
    sweeper: str, launcher: str, basic: bool
) -> None:
    hydra = SimpleNamespace(
        sweeper=SimpleNamespace(_target_=sweeper), launcher=SimpleNamespace(_target_=launcher)
    )
    assert is_basic_sweeper(hydra) is basic
    assert is_basic_launcher(hydra) is basic


def test_a_frozen_dataclass_can_be_overridden_and_keeps_its_types() -> None:
    node = writable_schema(Outer)
    changes = OmegaConf.from_dotlist(["rate=1", "widths=[3,4]", "inner.depth=2"])
    changed = OmegaConf.merge(node, changes)
    assert OmegaConf.to_object(changed) == Outer(1.0, [3, 4], Inner(2))
    for wrong in ("rate=much", "inner.depth=x", "rat=1", "inner.dept=1"):
        with pytest.raises(OmegaConfBaseException):
            OmegaConf.merge(node, OmegaConf.from_dotlist([wrong]))


def test_a_mapping_of_any_key_takes_any_key() -> None:
    node = writable_schema(Outer)
    OmegaConf.set_struct(node, True)
    node.inner.options.alpha = 0.3
    assert OmegaConf.to_object(node) == Outer(inner=Inner(options={"alpha": 0.3}))


def test_only_filled_mappings_are_children() -> None:
    node = writable_schema(Outer)
    inner = child_of(node, "inner")
    assert isinstance(inner, DictConfig)
    assert inner.depth == 1
    missing = OmegaConf.create({"gone": "???", "none": None, "number": 1, "row": [1]})
    assert [child_of(node, "maybe"), child_of(node, "rate"), child_of(node, "widths")] == [None] * 3
    assert [child_of(missing, str(key)) for key in missing] == [None] * 4
