"""What fedexp needs of Hydra and OmegaConf beside their public interface."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass, field
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from fedexp.config import hydra_internals


@dataclass(frozen=True)
class _Inner:
    number: int = 1


@dataclass(frozen=True)
class _Outer:
    inner: _Inner = field(default_factory=_Inner)
    options: dict[str, Any] = field(default_factory=dict)
    missing: int | None = None


def test_versions_are_those_that_the_corners_were_tried_with() -> None:
    assert importlib.metadata.version("hydra-core").startswith("1.3.")
    assert importlib.metadata.version("omegaconf").startswith("2.3.")


def test_hydras_flags_are_parsed_by_its_own_parser() -> None:
    args = hydra_internals.argument_parser().parse_args(["-m", "--config-dir", "x", "a=1", "b=2"])
    assert (args.multirun, args.config_dir, args.overrides) == (True, "x", ["a=1", "b=2"])
    assert not any((args.help, args.hydra_help, args.cfg, args.info, args.shell_completion))


def test_jobs_are_split_as_hydras_sweeper_splits_them() -> None:
    parser = OverridesParser.create()
    parsed = [parser.parse_override(line) for line in ("a=1,2", "b=x", "c=choice(3,4)")]
    jobs = hydra_internals.split_into_jobs(parsed)
    assert jobs == [["a=1", "b=x", "c=3"], ["a=1", "b=x", "c=4"], ["a=2", "b=x", "c=3"],
                    ["a=2", "b=x", "c=4"]]  # fmt: skip


def test_a_frozen_dataclass_becomes_a_node_that_overrides_can_change() -> None:
    node = hydra_internals.writable_schema(_Outer)
    node.inner.number = 5
    node.options.anything = 3
    assert OmegaConf.to_object(node) == _Outer(_Inner(5), {"anything": 3})


def test_only_filled_mappings_are_children() -> None:
    node = hydra_internals.writable_schema(_Outer)
    child = hydra_internals.child_of(node, "inner")
    assert child is not None
    assert child.number == 1
    assert hydra_internals.child_of(node, "missing") is None
    missing = OmegaConf.create({"a": "???", "b": None, "c": 1})
    assert [hydra_internals.child_of(missing, key) for key in "abc"] == [None, None, None]
