"""Write docs/reference/: a page per group of choices, from docstrings and dataclasses.

python scripts/reference.py           write the pages
python scripts/reference.py --check   exit with 1 if a page is not what the code says
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedexp import attacks, metrics
from fedexp.config import backend, schema
from fedexp.core.describing import Option, description, options
from fedexp.core.registry import Registry
from fedexp.manual.topics import SECTIONS, section

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "reference"

HEADS = {
    "strategy": ("Strategies", "`strategy=NAME`; options are set as `strategy.OPTION=VALUE`."),
    "dataset": ("Datasets", "`dataset=NAME`; options are set as `dataset.OPTION=VALUE`."),
    "partition": ("Partitions", "`partition=NAME`; options are set as `partition.OPTION=VALUE`."),
    "model": ("Models", "`model=NAME`; options are set as `model.OPTION=VALUE`."),
    "backend": ("Backends", "`backend=NAME`; options are set as `backend.OPTION=VALUE`."),
    "metric": (
        "Metrics",
        "`metrics=[NAME,...]`; those of the task, such as accuracy and loss, are always measured.",
    ),
    "attack": (
        "Attacks",
        "`clients.byzantine.kind=NAME` with `clients.byzantine.fraction=SHARE`; options of an attack's "
        "own are set as `clients.byzantine.options.OPTION=VALUE`.",
    ),
}


def group_page(group: str, registry: Registry[Any]) -> str:
    """Render the page of a group: every choice with its docstring and options."""
    title, how = HEADS[group]
    parts = [f"# {title}", _MADE, how]
    for name in registry.choices():
        page = registry.get(name)
        file = inspect.getsourcefile(page) or ""
        parts += [
            f"## {name}",
            description(page),
            *_table(options(page, leave_out=("name",))),
            f"Source: `fedexp/{file.rpartition('/fedexp/')[2]}`",
        ]
    return "\n\n".join(parts) + "\n"


def config_page() -> str:
    """Render the page of the options that belong to no group."""
    parts = [
        "# Configuration",
        _MADE,
        "Options that belong to no group. `fedexp --cfg job` prints all options of a run.",
    ]
    for topic, (entry, _) in SECTIONS.items():
        parts += [f"## {topic}", description(entry), *_table(section(topic))]
    return "\n\n".join(parts) + "\n"


def presets_page() -> str:
    """Render the YAML files of the groups that have no class for each choice."""
    parts = [
        "# Presets",
        _MADE,
        "YAML files that set several options at once; yours go into --config-dir.",
    ]
    for group in ("experiment", "clients", "tracking", "debug"):
        for path in sorted((ROOT / "conf" / group).glob("*.yaml")):
            parts += [f"## {group}={path.stem}", f"```yaml\n{path.read_text().rstrip()}\n```"]
    return "\n\n".join(parts) + "\n"


_MADE = "Made by `python scripts/reference.py` from the code; do not edit."


def _table(found: Sequence[Option]) -> list[str]:
    """Render options, if there are any."""
    rows = [
        f"| `{option.name}` | `{option.default}` | {option.values} | {option.meaning} |"
        for option in found
    ]
    head = ["| option | default | values | meaning |", "|---|---|---|---|"]
    return ["\n".join([*head, *rows]).replace("``", "`")] if rows else []


def pages() -> dict[str, str]:
    """Return every page: file name -> text."""
    registries = {
        **schema.GROUPS,
        "backend": backend.REGISTRY,
        "metric": metrics.REGISTRY,
        "attack": attacks.REGISTRY,
    }
    found = {f"{group}.md": group_page(group, registry) for group, registry in registries.items()}
    found["configuration.md"] = config_page()
    found["presets.md"] = presets_page()
    return {**found, "README.md": _index(found)}


def _index(found: dict[str, str]) -> str:
    """Render the list of all pages, by what each opens with."""
    rows = [
        f"| [{name}]({name}) | {text.splitlines()[0].lstrip('# ')} |"
        for name, text in found.items()
    ]
    table = "\n".join(["| page | about |", "|---|---|", *rows])
    return f"# Reference\n\n{_MADE}\n\nEvery choice with its options, defaults and ranges.\n\n{table}\n"


def main() -> None:
    """Write or check."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    stale = []
    for name, text in pages().items():
        path = FOLDER / name
        if args.check:
            stale += [] if path.is_file() and path.read_text() == text else [name]
        else:
            FOLDER.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    if stale:
        sys.exit(f"not what the code says: {', '.join(stale)}; run python scripts/reference.py")


if __name__ == "__main__":
    main()
