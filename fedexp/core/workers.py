"""The processes of a launcher such as joblib, which run jobs of a multirun beside one another."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from fedexp.core import owner

PATIENCE = 30.0
"""Seconds that processes have to end their runs in order; the launcher kills them afterwards."""


def stop_runs(sweep: Path, patience: float = PATIENCE) -> None:
    """Have this process's workers end the runs of a multirun, and wait until they have.

    Args:
        sweep: The multirun's folder.
        patience: Seconds to wait.
    """
    told: set[int] = set()
    until = time.monotonic() + patience
    while time.monotonic() < until and (busy := set(_busy(sweep))):
        for pid in busy - told:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        told |= busy
        time.sleep(0.05)


def _busy(sweep: Path) -> Iterator[int]:
    """Yield this process's workers that write a run's folder."""
    ours = {child.pid for child in multiprocessing.active_children()}
    for file in sweep.glob(f"*/{owner.FILE}"):
        pid = (owner.read(file.parent) or {}).get("pid")
        if isinstance(pid, int) and pid in ours and owner.is_owned(file.parent):
            yield pid
