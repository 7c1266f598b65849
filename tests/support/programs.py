"""Programs as a user starts them: processes of their own, in a folder that need not be the checkout."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

HEAVY = ("torch", "ray", "flwr")

_SPY = f"""
import atexit, os, runpy, sys
leave = os._exit

def tell():
    print([m for m in {HEAVY} if m in sys.modules], flush=True)

def tell_and_leave(code):
    tell()
    leave(code)

atexit.register(tell)
os._exit = tell_and_leave
sys.argv = sys.argv[1:]
if sys.argv[0].endswith(".py"):
    runpy.run_path(os.path.abspath(sys.argv[0]), run_name="__main__")
else:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
"""Runs a script or a module, and ends by saying which heavy modules were imported."""


def program(
    folder: Path,
    *words: str,
    spied: bool = False,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run ``python WORDS`` in a folder, ``python -m fedexp WORDS`` unless they begin with a script.

    Args:
        folder: Where it is started.
        words: What stands on the command line.
        spied: Whether the last line of the output is the list of heavy modules that were imported.
        environment: All of the process's variables; None is this process's.
    """
    script = bool(words) and words[0].endswith(".py")
    if spied:
        command = ["-c", _SPY, *([] if script else ["fedexp"]), *words]
    else:
        command = [*([] if script else ["-m", "fedexp"]), *words]
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
