"""Measure what a sweep of many short jobs costs beside training.

    python scripts/many_jobs.py                                  200 seeds of one-round runs
    python scripts/many_jobs.py --sweep groups                   200 jobs of several groups
    python scripts/many_jobs.py --python OTHER/.venv/bin/python  the same with another checkout's fedexp

Prints the seconds until the first line of the command and until the first job's first line, the seconds
and CPU seconds of the whole command with all its processes, and the exit code. Every job is a run of two
local steps of a small model in the driver's process, so what is left is what the framework takes.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

JOB = ["backend=inline", "model=logistic", "rounds=1", "training.local_steps=2", "clients.num=3"]
SWEEPS = {
    "seeds": ["partition=lesson", "seed=range(200)"],
    "groups": [
        "strategy=fedavg,fedprox,fedadam,scaffold,local_only",
        "partition=dirichlet,dirichlet_balanced",
        "partition.alpha=0.3,1",
        "seed=range(10)",
    ],
}


@dataclass(frozen=True)
class Cost:
    """Seconds of a command: to its first line, to its first job, in all, of CPU; and its exit code."""

    first_line: float
    first_job: float
    total: float
    cpu: float
    exit_code: int


def measure(python: str, sweep: list[str]) -> Cost:
    """Run a sweep in a folder of its own."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        process = subprocess.Popen(
            [python, "-u", "-m", "fedexp", "-m", *JOB, *sweep, "hydra.sweep.dir=out"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=folder,
        )
        seen: list[tuple[float, str]] = []
        for line in process.stdout or ():
            seen.append((time.perf_counter() - start, line))
        process.wait()
        total = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    jobs = [at for at, line in seen if "strategy=" in line]
    if process.returncode:
        print("".join(line for _, line in seen), file=sys.stderr)
    first = seen[0][0] if seen else total
    return Cost(first, jobs[0] if jobs else total, total, cpu, process.returncode)


def main() -> None:
    """Measure and print one line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sweep", choices=SWEEPS, default="seeds")
    parser.add_argument("--python", default=sys.executable, help="whose fedexp is measured")
    args = parser.parse_args()
    cost = measure(args.python, SWEEPS[args.sweep])
    print(
        f"200 jobs ({args.sweep}): first line {cost.first_line:.2f} s, first job {cost.first_job:.1f} s, "
        f"all {cost.total:.0f} s, CPU {cost.cpu:.0f} s, exit code {cost.exit_code}"
    )
    sys.exit(cost.exit_code)


if __name__ == "__main__":
    main()
