"""Jobs of a multirun beside one another, in processes that are forked from this one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fedexp.core.forked import Crew

SHORT = 60.0
"""Seconds that a job may take if others are to run beside it unasked."""

JobLine = tuple[int, Sequence[str]]
"""A job's number and its overrides."""


@dataclass(frozen=True)
class Beside:
    """How jobs run beside one another.

    Attributes:
        processes: How many at a time.
        if_short: Only where the first job, which then runs alone, was short.
        forked: Called before every job that runs beside others, in its process.
        lost: Told of a job that has no result: its number, and the exit code of its process.
    """

    processes: int
    if_short: bool
    forked: Callable[[], object]
    lost: Callable[[int, int], object]
    failed: Callable[[], bool] = lambda: False
    """Asked after every job, in its process: whether it failed, which was told."""

    def run(
        self,
        jobs: Sequence[JobLine],
        announce: Callable[[int, Sequence[str]], object],
        job: Callable[[int, Sequence[str]], float | None],
    ) -> tuple[dict[int, float | None], Sequence[JobLine]]:
        """Run jobs in other processes.

        Args:
            jobs: All of them.
            announce: Called before each, in this process.
            job: Runs one, and returns what it has to say; None if it has no folder.

        Returns:
            What they returned, by number; and the jobs left: all but the first, if that was long.
        """
        found: dict[int, float | None] = {}
        overrides, among = dict(jobs), not self.if_short

        def run(number: int) -> float | None:
            if among or number != jobs[0][0]:
                self.forked()
            self.failed()  # forget what an earlier job left, here or in the parent
            value = job(number, overrides[number])
            return None if self.failed() else value

        def ended(number: int, value: float | None, code: int) -> None:
            found[number] = value
            if value is None:
                self.lost(number, code)

        crew, since = Crew(self.processes, run, ended), time.monotonic()
        try:
            for position, (number, words) in enumerate(jobs):
                crew.wait_for_place()
                announce(number, words)
                crew.start(number)
                if self.if_short and position == 0:
                    crew.wait()
                    if time.monotonic() - since > SHORT:
                        crew.finish()
                        return found, jobs[1:]
            crew.finish()
        except BaseException:  # also where nobody reads what is told, or nothing can be forked
            crew.stop()
            raise
        return found, ()
