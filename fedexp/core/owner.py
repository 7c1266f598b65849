"""Who writes a folder: one process at a time, and whether it is still there.

``owner.json`` in the folder names the process. It is made when a run starts and removed when it ends; a
run that was killed leaves it, and whoever looks can tell that nobody is behind it.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fedexp.core.options import FedexpError

FILE = "owner.json"

BEAT, SILENCE = 20.0, 120.0
"""Seconds from one heartbeat to the next, and after which a process on another machine counts as gone."""


class TakenError(FedexpError):
    """Another process writes the folder."""


class Hold:
    """Keeps a folder for this process: made by :func:`take`, ended by :meth:`give_back`.

    A thread touches ``owner.json`` meanwhile, however long a round takes: other machines see none of
    this one's processes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._ended = folder, threading.Event()
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    def give_back(self) -> None:
        """Stop being the owner; of a folder that is somebody else's by now, nothing changes."""
        self._ended.set()
        if read(self._folder) == _myself():
            with suppress(OSError):
                (self._folder / FILE).unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            with suppress(OSError):
                os.utime(self._folder / FILE)


_reserved: dict[Path, Hold] = {}


def reserve(folder: Path) -> None:
    """Take a folder, which is made if need be, before the run that is to write it begins.

    Raises:
        TakenError: If another process owns it.
        OSError: If it cannot be made, or nothing can be written there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _reserved[folder.resolve()] = _become_owner(folder)


def release(folder: Path | None = None) -> None:
    """Give back what was reserved and not taken since: one folder, or all of them."""
    if folder is not None:
        hold = _reserved.pop(folder.resolve(), None)
        if hold is not None:
            hold.give_back()
        return
    while _reserved:
        _reserved.popitem()[1].give_back()


def take(folder: Path) -> Hold:
    """Become the folder's owner; one that is gone is replaced.

    Args:
        folder: It exists.

    Raises:
        TakenError: If another process owns it, with the process and the machine.
        OSError: If nothing can be written there.
    """
    return _reserved.pop(folder.resolve(), None) or _become_owner(folder)


def _become_owner(folder: Path) -> Hold:
    folder = folder.absolute()  # a job may change the working directory
    with _alone_in(folder):
        refuse_taken(folder)
        # Whole or not at all: a reader may come at any time.
        partial = folder / f".{FILE}.partial"
        partial.write_text(json.dumps(_myself()))
        os.replace(partial, folder / FILE)
    return Hold(folder)


def refuse_taken(folder: Path) -> None:
    """Refuse a folder that a process writes.

    Raises:
        TakenError: With the process and the machine.
    """
    owner = read(folder)
    if owner is not None and is_there(folder, owner, clock_of(folder)):
        raise TakenError(
            f"{folder} is being written by process {owner['pid']} on {owner.get('host')}: wait for "
            "it, or choose another folder"
        )


def wait_for(folder: Path, say: Callable[[str], None]) -> None:
    """Wait until it is plain whether a folder's owner on another machine is still there.

    A node that was lost leaves a heartbeat that is fresh for a while; a job that a scheduler has started
    again elsewhere must not fail for that.

    Args:
        folder: The folder.
        say: Told once, if it takes longer than a moment.
    """
    owner = read(folder)
    if owner is None or is_near(owner) or not is_there(folder, owner, clock_of(folder)):
        return
    # A second more than the silence that counts: clocks of files are coarse.
    first, patience = last_beat(folder), time.monotonic() + SILENCE + 1
    say(
        f"{folder}: waiting up to {SILENCE:.0f} s for a sign of life of process {owner['pid']} on "
        f"{owner['host']}"
    )
    while time.monotonic() < patience and last_beat(folder) == first:
        if not is_there(folder, owner, clock_of(folder)):
            return
        time.sleep(0.2)


def read(folder: Path) -> dict[str, Any] | None:
    """Return who owns a folder; None if nobody says so."""
    try:
        content = json.loads((folder / FILE).read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and isinstance(content.get("pid"), int) else None


def is_owned(folder: Path) -> bool:
    """Say whether a process that is still there writes a folder."""
    owner = read(folder)
    return owner is not None and is_there(folder, owner)


def is_there(folder: Path, owner: dict[str, Any], now: float | None = None) -> bool:
    """Say whether a folder's owner is still there.

    Args:
        folder: The folder.
        owner: What :func:`read` returned.
        now: The time by the clock that heartbeats are written with; None is this machine's.
    """
    if not is_near(owner):
        last = last_beat(folder)
        return last is not None and (time.time() if now is None else now) - last < SILENCE
    if owner.get("boot") != _boot():
        return False  # the machine was started again since
    return _started(owner["pid"]) == owner.get("started") is not None


def is_near(owner: dict[str, Any]) -> bool:
    """Say whether an owner, if it is there, is among the processes that this one can see."""
    # Another container has processes of its own, under the same numbers.
    here = {"host": socket.gethostname(), "namespace": _namespace()}
    return os.name == "posix" and all(owner.get(name) == here[name] for name in here)


def clock_of(folder: Path) -> float:
    """Return the time by the clock of a folder's file system, which a file server may have of its own.

    A heartbeat is written with that clock. To compare it with this machine's could take a run that goes
    on for one that is gone.
    """
    probe = folder / f".{FILE}.{socket.gethostname()}.{os.getpid()}.clock"
    try:
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink()
    except OSError:  # nothing can be written here, so nobody is about to take the folder
        return time.time()
    return now


def last_beat(folder: Path) -> float | None:
    """Return when a folder's owner last showed that it is there; None if it has none."""
    try:
        return (folder / FILE).stat().st_mtime
    except OSError:
        return None


def _myself() -> dict[str, Any]:
    pid = os.getpid()
    return {
        "pid": pid,
        "host": socket.gethostname(),
        "boot": _boot(),
        "namespace": _namespace(),
        "started": _started(pid),
    }


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """Return when a process started, as the system counts; None if there is none.

    A number alone would not do: another process may have it by now.
    """
    try:
        # The second field, the program's name, may hold blanks and parentheses.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]  # a zombie writes nothing any more
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
