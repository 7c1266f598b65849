"""Commands as users write them: how theirs began, and how what they can paste begins."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from fedexp.core.terminal import paragraphs, printable

_begun: list[str] = ["fedexp"]


def begun_by(program: str) -> None:
    """Note what the program was started by: ``sys.argv[0]`` where ``main()`` was called."""
    script = program.endswith(".py") and Path(program).name != "__main__.py"
    _begun[:] = ["python", program] if script else ["fedexp"]


def command(*words: str) -> str:
    """Return a command of this program, quoted for a shell.

    A script of the user's own is named: nothing else knows the pages that it registers.
    """
    return shlex.join([*_begun, *words])


class _Parser(argparse.ArgumentParser):
    def format_help(self) -> str:
        """Return the help as standard output can hold it."""
        return printable(super().format_help())


def parser_of(name: str, description: str) -> argparse.ArgumentParser:
    """Return a parser for ``fedexp NAME``.

    Args:
        name: The subcommand.
        description: What its help begins with: paragraphs, and indented lines that stay as they are.
    """
    return _Parser(
        prog=f"fedexp {name}",
        description=paragraphs(description),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
