"""Commands that a user can paste, begun as the one that runs: ``fedexp ...``, ``python mine.py ...``."""

from __future__ import annotations

import shlex
from pathlib import Path

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
