"""What this machine has to offer."""

from __future__ import annotations

import math
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

from fedexp.core import preloading
from fedexp.core.options import FedexpError

PORTABLE = {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "COMPATIBLE", "ONEDNN_MAX_CPU_ISA": "AVX2"}
"""What torch, MKL and oneDNN read when each of them computes for the first time in a process. With AVX2,
too, MKL computes otherwise on Intel's processors than on those of other makers; COMPATIBLE is for all."""


def usable_cpus() -> int:
    """Return the number of CPUs that this process may use.

    A container may be given fewer than it can see, by a quota of time (``docker run --cpus=2``).
    """
    here = (
        os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    )
    seen, quota = len(here), cpu_quota()
    # Of two and a half CPUs, two can work all the time; half a one is still one to start with.
    return seen if quota is None else max(1, min(seen, math.floor(quota)))


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Return how many CPUs' time this process is given by control groups; None if there is no limit.

    Args:
        root: Below which ``proc`` and ``sys`` are.
    """
    limits = [limit for folder in _groups(root) if (limit := _limit(folder)) is not None]
    return min(limits, default=None)


def usable_memory(root: Path = Path("/")) -> int | None:
    """Return the bytes of memory that this process may still take; None where nobody says.

    Args:
        root: Below which ``proc`` and ``sys`` are.
    """
    found = []
    with suppress(OSError, ValueError, StopIteration):
        lines = (root / "proc/meminfo").read_text().splitlines()
        free = next(line for line in lines if line.startswith("MemAvailable:"))
        found.append(1024 * int(free.split()[1]))
    for folder in _groups(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            with suppress(OSError, ValueError):  # "max" is no number
                found.append(int((folder / name).read_text()))
    return min(found, default=None)


def _groups(root: Path, kind: str = "cpu") -> Iterator[Path]:
    """Yield the folders of this process's control groups that limit something, and of those above."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, kinds, inside = [*line.split(":", 2), "", ""][:3]
        if number == "0" and not kinds:
            tops = [root / "sys/fs/cgroup", root / "sys/fs/cgroup/unified"]
        elif kind in kinds.split(","):
            tops = [root / "sys/fs/cgroup" / name for name in dict.fromkeys((kinds, kind))]
        else:
            continue
        # A container may see its own group as the top, whatever the path says.
        own = Path(inside.lstrip("/"))
        for top in tops:
            yield from (top / part for part in (own, *own.parents) if ".." not in part.parts)


def _limit(folder: Path) -> float | None:
    """Return the CPUs that one control group allows, of either version of Linux's interface."""
    with suppress(OSError, ValueError):
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    with suppress(OSError, ValueError):
        allowed = int((folder / "cpu.cfs_quota_us").read_text())
        return None if allowed <= 0 else allowed / int((folder / "cpu.cfs_period_us").read_text())
    return None


def compute_portably() -> None:
    """Have torch compute as a processor with AVX2 does, in this process and those that it starts.

    Raises:
        FedexpError: If the processor has no AVX2, if torch has computed with more in this process
            already, or if one of :data:`PORTABLE` stands in the environment with another value.
    """
    asked = "backend.portable=true"
    if not has_avx2():
        raise FedexpError(
            f"{asked} needs an x86-64 processor with AVX2, and Linux: leave it out here"
        )
    for name, value in PORTABLE.items():
        if os.environ.get(name, value).lower() != value.lower():
            raise FedexpError(f"{asked} sets {name}={value}, which is {os.environ[name]}: unset it")
    before = dict(os.environ)
    preloading.wait()  # libraries read the environment while they are loaded
    os.environ.update(PORTABLE)
    torch = sys.modules.get("torch")
    if torch is not None and torch.backends.cpu.get_cpu_capability() != "AVX2":
        for name in (
            PORTABLE.keys() - before.keys()
        ):  # processes that are started are to compute as this
            del os.environ[name]
        raise FedexpError(
            f"{asked}: torch has computed with all that the processor has in this process, and settles "
            "it once: take another process"
        )
    _told.append(True)


_told: list[bool] = []


def computes_portably() -> bool:
    """Say whether this process was told by :func:`compute_portably`."""
    return bool(_told)


@cache
def has_avx2(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Say whether this is an x86-64 machine with AVX2; no where nobody says, as on other systems."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    with suppress(OSError):
        lines = cpuinfo.read_text().splitlines()
        flags = next((line.split() for line in lines if line.startswith("flags")), [])
        return {"avx2", "fma"} <= set(flags)
    return False
