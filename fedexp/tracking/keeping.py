"""What is kept of a run, so that it can go on in another process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fedexp.core.checkpoints import Checkpoints
from fedexp.core.files import unwritable
from fedexp.core.options import AUTO
from fedexp.core.state import UnsavableError
from fedexp.federation.events import RunInfo
from fedexp.federation.snapshot import Keeper
from fedexp.tracking.identity import identity
from fedexp.tracking.run_folder import RunFolder
from fedexp.tracking.trackers import Trackers


class RunKeeper(Keeper):
    """Checkpoints of a run, with what its folder and its trackers add to them.

    Args:
        run: What runs.
        folder: Its folder, which has begun.
        trackers: Its trackers.
        seconds: Tells the seconds of the run so far.
        say: Tells the user something.
    """

    def __init__(
        self,
        run: RunInfo,
        folder: RunFolder,
        trackers: Trackers,
        seconds: Callable[[], float],
        say: Callable[..., None],
    ) -> None:
        every = run.config.checkpoint.every
        self._checkpoints = Checkpoints(run.folder, None if every == AUTO else int(every))
        self._run, self._folder, self._trackers = run, folder, trackers
        self._seconds, self._say = seconds, say
        self._identity: dict[str, Any] = {}
        self._refused = False

    def begin(self) -> None:
        """Make room.

        Raises:
            FedexpError: If the folder cannot be written.
        """
        before = self._run.resume
        with unwritable(self._run.folder):
            self._checkpoints.begin(0 if before is None else int(before["round"]))

    def is_due(self, server_round: int) -> bool:
        """Ask whether it is time."""
        return not self._refused and self._checkpoints.is_due(server_round)

    def save(self, server_round: int, state: Callable[[], dict[str, Any]]) -> None:
        """Write a checkpoint; a strategy whose state cannot be saved goes on without.

        Raises:
            FedexpError: If it cannot be written.
        """
        if self._refused or self._run.config.checkpoint.every == 0:
            return
        if not self._identity:
            self._identity = identity(self._run.config)

        def whole() -> dict[str, Any]:
            return {
                **state(),
                "identity": self._identity,
                "files": self._folder.positions(),
                "seconds": self._seconds(),
                "trackers": self._trackers.ids(),
            }

        try:
            with unwritable(self._run.folder):
                self._checkpoints.save(server_round, whole)
        except UnsavableError as error:
            self._refused = True
            self._say(f"  this run cannot be resumed: {error}")
