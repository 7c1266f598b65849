"""How many jobs of a multirun run beside one another on this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fedexp.config.beside import Beside
from fedexp.config.composition import Job
from fedexp.config.hydra_internals import BASIC
from fedexp.core import forked, garbage
from fedexp.core.machine import usable_cpus, usable_memory

FEWEST = 4
"""Jobs of a command from which on some run beside others unasked: the first is alone."""

ROOM = 2 * 2**30
"""Bytes of memory that there must be for each job that runs beside others unasked."""


def beside(
    jobs: Sequence[Job], lost: Callable[[int, int], object], failed: Callable[[], bool]
) -> Beside | None:
    """Say how jobs run beside one another; None runs one after another.

    Args:
        jobs: Of a command; a sweeper that chooses them as it goes has one here.
        lost: Told of a job that has no result: its number, and the exit code of its process.
        failed: Says in a job's process whether it failed.
    """
    backends = [job.config.backend for job in jobs]
    ours = jobs[0].launcher == BASIC and not any(job.chosen_later for job in jobs)
    if not (ours and forked.can_fork() and all(job.config.mode == "train" for job in jobs)):
        return None
    wanted = {backend.jobs_at_once for backend in backends}
    if len(wanted) != 1:
        return None
    (asked,) = wanted
    processes = min(len(jobs), asked or _room(max(backend.threads for backend in backends)))
    if processes < 2 or (asked is None and len(jobs) < FEWEST):
        return None
    return Beside(processes, asked is None, _among_others, lost, failed)


def _room(threads: int) -> int:
    by_memory = (usable_memory() or ROOM) // ROOM
    return min(usable_cpus() // threads, by_memory)


def _among_others() -> None:
    """Have this process's clients stay in it: its neighbours are on the other CPUs."""
    from fedexp.backends import ray_later

    forked.among_others = True
    ray_later.stay_here()
    garbage.settle()
