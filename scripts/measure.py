"""Run a command that does an experiment, and measure what it takes: time, memory, what Ray carries."""

from __future__ import annotations

import math
import os
import re
import statistics
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import psutil

from fedexp.launching import FEWEST

EVERY = 0.2
"""Seconds between two looks at the processes, and between two that Ray's store takes at itself."""
CARRIED = re.compile(r"num bytes created total: (\d+)")


@dataclass(frozen=True)
class Timing:
    """One pass of one row: seconds; peaks of memory, and what Ray's object store carried, in MiB."""

    round: float
    start: float
    end: float
    total: float
    memory: float
    driver: float
    store: float


def measure(command: list[str], folder: Path) -> Timing:
    """Run a command that writes timings.csv files below a folder.

    Raises:
        subprocess.CalledProcessError: If it fails; its output is printed.
    """
    start = time.perf_counter()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env={**os.environ, "RAY_event_stats_print_interval_ms": f"{EVERY * 1000:.0f}"},
    )
    seen = Seen()
    watcher = threading.Thread(target=_watch, args=(process.pid, seen), daemon=True)
    watcher.start()
    output, _ = process.communicate()
    total, now = time.perf_counter() - start, time.time()
    if process.returncode:
        print(output, file=sys.stderr)
        raise subprocess.CalledProcessError(process.returncode, command)
    rounds: list[float] = []
    files = sorted(folder.rglob("timings.csv"))
    for file in files:
        table = pd.read_csv(file)
        rounds += table[table["round"] > 0].groupby("round")["seconds"].sum().tolist()
    end = now - max(file.stat().st_mtime for file in files)
    rest = math.nan if len(files) >= FEWEST else total - sum(rounds) - end
    memory, driver, store = (size / 2**20 for size in (seen.memory, seen.driver, seen.carried()))
    return Timing(statistics.median(rounds), rest, end, total, memory, driver, store)


@dataclass
class Seen:
    """What was seen of a process and its children, in bytes.

    Attributes:
        memory: The peak of what all take.
        driver: The peak of the process alone.
        logs: What each of Ray's nodes writes of itself.
    """

    memory: int = 0
    driver: int = 0
    logs: set[Path] = field(default_factory=set)

    def carried(self) -> int:
        """Return how much was put into the object stores, but for the last :data:`EVERY` seconds."""
        found = [
            CARRIED.findall(log.read_text(errors="replace")) for log in self.logs if log.exists()
        ]
        return sum(int(sizes[-1]) for sizes in found if sizes)


def _watch(pid: int, seen: Seen) -> None:
    while psutil.pid_exists(pid):
        sizes = []
        with suppress(psutil.NoSuchProcess):  # it may end between the listing and the question
            for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
                sizes.append(process.memory_info())
                if process.name() == "raylet":
                    seen.logs |= {
                        Path(word.removeprefix("--log_dir="), "raylet.out")
                        for word in process.cmdline()
                        if word.startswith("--log_dir=")
                    }
        if sizes:
            private = sum(size.rss - size.shared for size in sizes)
            seen.memory = max(seen.memory, private + max(size.shared for size in sizes))
            seen.driver = max(seen.driver, sizes[0].rss)
        time.sleep(EVERY)
