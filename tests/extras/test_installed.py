"""The extras that make test-extras installs are there, in the versions that constraints.txt names."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[2]


def _extras() -> list[str]:
    (line,) = re.findall(r"^EXTRAS = (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return str(line).split(",")


def _packages() -> set[str]:
    optional = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [told for extra in _extras() for told in optional["optional-dependencies"][extra]]
    return {re.split(r"[^\w.-]", told)[0] for told in named} - {"fedexp"}


def test_what_extras_bring_is_what_the_constraints_name() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = dict(line.lower().split("==") for line in lines)
    assert _packages()
    for name in _packages():
        assert version(name) == pinned[name.lower()]
