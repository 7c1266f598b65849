"""SuperLink and SuperNodes on this machine, for as long as this process lives, once for all its jobs.

Imports neither flwr nor torch: the processes start while the program is still importing them.
"""

from __future__ import annotations

import atexit
import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedexp.core.options import FedexpError

GRACE = 10.0
"""Seconds that the processes may take to end."""

_QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
"""Flower's programs would tell their maker of every run, and ask for updates."""


class Rehearsal:
    """A SuperLink and its SuperNodes, which all start when this is made.

    Args:
        held: What each SuperNode holds, as ``flower-supernode --node-config`` takes it.

    Attributes:
        secret: Without it, nobody is given a run's messages: other users of the machine reach the ports.
    """

    def __init__(self, held: Sequence[str]) -> None:
        self.held, self.secret = list(held), secrets.token_bytes(32)
        folder = Path(tempfile.mkdtemp(prefix="fedexp-rehearsal-"))  # for this user alone
        (folder / "secret").write_bytes(self.secret)
        with (folder / "flower.log").open("wb") as log:
            self._keeper = subprocess.Popen(
                [sys.executable, "-m", "fedexp.backends.keeper"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for this process, which then ends the others
                env={**os.environ, **_QUIET},
            )
        self._say({"folder": str(folder), "held": self.held})
        self._found: dict[str, Any] | None = None

    @property
    def is_alive(self) -> bool:
        """Whether it can take another run."""
        return self._keeper.poll() is None

    @property
    def address(self) -> str:
        """``host:port`` of the SuperLink, once it is there.

        Raises:
            FedexpError: If it did not start.
        """
        if self._found is None:
            assert self._keeper.stdout is not None
            line = self._keeper.stdout.readline()
            self._found = (
                json.loads(line) if line else {"error": "the process that starts it ended"}
            )
        assert self._found is not None
        if "error" in self._found:
            raise FedexpError(
                f"backend=deployment: SuperLink and SuperNodes did not start ({self._found['error']}): "
                "backend=inline runs without"
            )
        return str(self._found["superlink"])

    def close(self) -> None:
        """End all processes, and wait until they have."""
        if self._keeper.stdin is not None:
            self._keeper.stdin.close()
        try:
            self._keeper.wait(GRACE)
        except subprocess.TimeoutExpired:
            self._keeper.kill()  # those that it started end with it
            self._keeper.wait()

    def _say(self, wanted: dict[str, Any]) -> None:
        assert self._keeper.stdin is not None
        self._keeper.stdin.write(json.dumps(wanted).encode() + b"\n")
        self._keeper.stdin.flush()


_current: Rehearsal | None = None


def rehearsal(held: Sequence[str]) -> Rehearsal:
    """Start SuperLink and SuperNodes, or keep those that run if they hold the same."""
    global _current
    if _current is None or _current.held != list(held) or not _current.is_alive:
        shutdown()
        _current = Rehearsal(held)
    return _current


@atexit.register
def shutdown() -> None:
    """End what was started."""
    global _current
    ended, _current = _current, None
    if ended is not None:
        ended.close()
