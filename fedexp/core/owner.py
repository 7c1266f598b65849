"""Who writes a folder: one process at a time, and whether it is still there.

``owner.json`` in the folder names the process. It is made when a run starts and removed when it ends; a
run that was killed leaves it, and whoever looks can tell that nobody is behind it.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

FILE = "owner.json"

SILENCE = 120.0
"""Seconds without a heartbeat after which a process on another machine counts as gone."""


class TakenError(Exception):
    """Another process writes the folder."""


def take(folder: Path) -> None:
    """Become the folder's owner; one that is gone is replaced.

    Args:
        folder: It exists.

    Raises:
        TakenError: If another process owns it, with the process and the machine.
    """
    with _alone_in(folder):
        owner = read(folder)
        if owner is not None and is_there(folder, owner):
            raise TakenError(
                f"{folder} is being written by process {owner.get('pid')} on {owner.get('host')}"
            )
        # Whole or not at all: a reader may come at any time.
        partial = folder / f".{FILE}.partial"
        partial.write_text(json.dumps(_myself()))
        os.replace(partial, folder / FILE)


def give_back(folder: Path) -> None:
    """Stop being the owner; of a folder that is somebody else's by now, nothing changes."""
    if read(folder) == _myself():
        (folder / FILE).unlink(missing_ok=True)


def heartbeat(folder: Path) -> None:
    """Show other machines that the owner is there."""
    with suppress(OSError):
        os.utime(folder / FILE)


def read(folder: Path) -> dict[str, Any] | None:
    """Return who owns a folder; None if nobody says so."""
    try:
        content = json.loads((folder / FILE).read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def is_owned(folder: Path) -> bool:
    """Say whether a process that is still there writes a folder."""
    owner = read(folder)
    return owner is not None and is_there(folder, owner)


def is_there(folder: Path, owner: dict[str, Any]) -> bool:
    """Say whether a folder's owner is still there."""
    myself = _myself()
    if owner.get("host") != myself["host"]:
        try:
            return time.time() - (folder / FILE).stat().st_mtime < SILENCE
        except OSError:
            return False
    if owner.get("boot") != myself["boot"]:
        return False  # the machine was started again since
    pid = owner.get("pid")
    return isinstance(pid, int) and _started(pid) == owner.get("started") is not None


def _myself() -> dict[str, Any]:
    pid = os.getpid()
    return {"pid": pid, "host": socket.gethostname(), "boot": _boot(), "started": _started(pid)}


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """Return when a process started, as the system counts; None if there is none.

    A number alone would not do: another process may have it by now.
    """
    try:
        # The second field, the program's name, may hold blanks and parentheses.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        pass
    if Path("/proc/self/stat").exists():
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass
    return "unknown"


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Let one process at a time look and take, where the system can lock."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # not every file system locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
