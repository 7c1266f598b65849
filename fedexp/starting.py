"""``fedexp new``: a starting file for a page of your own."""

from __future__ import annotations

import keyword
import re
import sys
from collections.abc import Sequence
from importlib.metadata import packages_distributions
from pathlib import Path

from fedexp.config.plugins import REGISTRIES
from fedexp.core.commands import parser_of

DESCRIPTION = """Write a starting file for a choice of your own: a complete one that runs, to be changed.

    fedexp new strategy mine       writes mine.py
    python mine.py -m strategy=mine,fedavg

docs/extend.md says what each of them can do.
"""

KINDS = ("strategy", "dataset", "model", "partition", "metric", "attack")
_REGISTERED = {"metric": "metrics"}
_NAME = re.compile(r"[a-z][a-z0-9_]*")


def new_program(arguments: Sequence[str]) -> None:
    """Write the file, and say how it is run."""
    parser = parser_of("new", DESCRIPTION)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("name", help="what the command line is to call it, such as mine")
    args = parser.parse_args(arguments)
    if not _NAME.fullmatch(args.name):
        parser.error(f"NAME must be small letters, digits and _, got {args.name!r}")
    if args.name in REGISTRIES[_REGISTERED.get(args.kind, args.kind)].choices():
        parser.error(f"NAME {args.name!r} is one of fedexp's own: choose another name")
    if _is_taken(args.name, starting_file(args.kind, args.name)):
        parser.error(
            f"NAME {args.name!r} is one of Python's, fedexp's or a package's: choose another name"
        )
    path = Path(f"{args.name}.py")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(starting_file(args.kind, args.name))
    except FileExistsError:
        print(f"fedexp new: {path} is there already; choose another name", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(f"fedexp new: {path}: {error.strerror}", file=sys.stderr)
        sys.exit(2)
    command = next(
        line.strip() for line in path.read_text().splitlines() if line.startswith("    python ")
    )
    print(f"wrote {path}; run it with\n    {command}")


def _is_taken(name: str, text: str) -> bool:
    """Say whether a file or class of that name would hide what the file itself imports."""
    camel = _camel(name)
    imported = re.findall(r"^from fedexp import (.*)$", text, re.MULTILINE)
    hidden = {word.strip() for line in imported for word in line.split(",")}
    packages = {*sys.stdlib_module_names, *packages_distributions()}
    is_word = keyword.iskeyword(camel) or keyword.iskeyword(name)
    return is_word or camel in hidden or name in packages


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def starting_file(kind: str, name: str) -> str:
    """Return the text of a starting file.

    Args:
        kind: One of :data:`KINDS`.
        name: What the command line is to call it: small letters, digits and _.
    """
    text = (Path(__file__).parent / "starters" / f"{kind}.py").read_text(encoding="utf-8")
    return re.sub(r"\bMine", _camel(name), re.sub(r"\bmine\b", name, text))
