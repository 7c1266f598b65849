"""How long the rest of something takes, from what was measured of it so far."""

from __future__ import annotations

import time
from collections.abc import Callable


class Pace:
    """Counts the seconds from job to job.

    Args:
        clock: Returns the time in seconds.
        at_once: Jobs that run at the same time.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, at_once: int = 1) -> None:
        self._clock, self._at_once = clock, at_once
        self._begun: list[float] = []

    def left(self, jobs: int) -> str:
        """Note that a job begins, and say how long it and the rest will take.

        Args:
            jobs: How many are left, that one included.

        Returns:
            ``, 12 min left``, to stand behind the job's number; nothing before the first has ended.
        """
        self._begun.append(self._clock())
        ended = len(self._begun) - self._at_once
        if ended <= 0:
            return ""
        # The first pays for imports, or for the start of Ray, which the others find done.
        first = 1 if ended > 1 else 0
        mean = (self._begun[-1] - self._begun[first]) / (ended - first)
        return f", {duration(mean * jobs)} left"


def duration(seconds: float) -> str:
    """Write a span of time as a person would say it: ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 59.5:
        return f"{max(1.0, seconds):.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
