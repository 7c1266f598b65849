"""Checkpoints of a run: files that appear whole or not at all, the last two kept."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fedexp.core.files import write_whole
from fedexp.core.options import FedexpError
from fedexp.core.state import pack, unpack

FOLDER = "checkpoint"
KEPT = 2

SHARE = 0.02
"""The share of a run's time that checkpoints may take where nobody says how often they are made."""

_NAME = re.compile(r"round-(\d+)\.safetensors")


class Checkpoints:
    """Writes a run's checkpoints.

    Args:
        folder: The run's.
        every: Rounds from one to the next; None spaces them so that they take 2 % of the time at most,
            0 makes none.
    """

    def __init__(self, folder: Path, every: int | None) -> None:
        self._folder, self._every = folder / FOLDER, every
        self._last_round = 0
        self._rest_until = 0.0

    def begin(self, last_round: int) -> None:
        """Remove what stands in the way of a run that begins, or goes on after a round.

        Later checkpoints are damaged, or of a run that nobody can go on with; they would take the places
        of the new ones.

        Args:
            last_round: The round that the run goes on after; 0 for a run that begins.

        Raises:
            OSError: If one cannot be removed.
        """
        later = [path for number, path in _files(self._folder).items() if number > last_round]
        for path in (*later, *self._folder.glob(".*.partial")):  # the latter were cut off
            path.unlink(missing_ok=True)
        self._last_round = last_round

    def is_due(self, server_round: int) -> bool:
        """Say whether a checkpoint is to be made after a round."""
        if self._every is None:
            return time.monotonic() >= self._rest_until
        return self._every > 0 and server_round - self._last_round >= self._every

    def save(self, server_round: int, state: Callable[[], Mapping[str, Any]]) -> None:
        """Write a checkpoint: it is on the disk when this returns.

        Args:
            server_round: The round that is over.
            state: Gathers what is to be kept; that takes its time, too.

        Raises:
            OSError: If it cannot be written; the earlier ones are as they were.
            UnsavableError: If the state holds what cannot be saved.
        """
        start = time.monotonic()
        content = pack(state())
        self._folder.mkdir(exist_ok=True)
        write_whole(self._folder / f"round-{server_round}.safetensors", content)
        for old in list(_files(self._folder).values())[:-KEPT]:
            old.unlink(missing_ok=True)
        self._last_round = server_round
        now = time.monotonic()
        self._rest_until = now + (now - start) / SHARE

    def __repr__(self) -> str:
        return f"Checkpoints({self._folder}, every={self._every})"


def latest(folder: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """Return a run's last checkpoint that can be read, and what is wrong with later ones.

    Args:
        folder: The run's.

    Returns:
        What :meth:`Checkpoints.save` was given (None if there is none), and a line for every file that
        had to be passed over.

    Raises:
        FedexpError: If there is none, and one that the system could not read: another time it may be
            read, and a run that begins anew would remove it.
    """
    problems: list[str] = []
    unread: FedexpError | None = None
    for path in reversed(_files(folder / FOLDER).values()):
        try:
            return unpack(path.read_bytes()), problems
        except ValueError as error:
            problems.append(f"{path}: {error}")
        except OSError as error:
            why = error.strerror or str(error)
            problems.append(f"{path}: {why}")
            unread = FedexpError(
                f"{path} cannot be read: {why}; mend that, or remove the file to have the run begin anew"
            )
    if unread is not None:
        raise unread
    return None, problems


def _files(folder: Path) -> dict[int, Path]:
    """Return a folder's checkpoints by round, the earliest first."""
    found = {
        int(match[1]): path for path in folder.glob("*") if (match := _NAME.fullmatch(path.name))
    }
    return dict(sorted(found.items()))
