"""Measure what checkpoints cost: their seconds beside those of the rounds, as runs make them by default.

    python scripts/checkpoint_cost.py dataset.root=data                  W1 and W2 of scripts/benchmark.py
    python scripts/checkpoint_cost.py --work W1 checkpoint.every=1 dataset.root=data

`rounds` is the sum of timings.csv without startup; `checkpoints` is all that keeping takes in the same
process: gathering the state, hashing, writing, waiting for the disk. The issue is `share`: under 2 %.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
from benchmark import WORK

from fedexp import runner
from fedexp.config.composition import plan
from fedexp.federation.events import RunInfo
from fedexp.tracking.keeping import RunKeeper


@dataclass
class Cost:
    """What keeping took in a run: seconds, and how many checkpoints were made."""

    seconds: float = 0.0
    made: int = 0


def measured(overrides: list[str], folder: Path) -> list[tuple[str, Cost, float]]:
    """Run the jobs of a command; return each one's name, checkpoint cost and seconds of rounds."""
    found = []
    for number, job in enumerate(plan(overrides, multirun=True)):
        cost, where = Cost(), folder / str(number)
        save = RunKeeper.save

        def timed(
            self: RunKeeper,
            server_round: int,
            state: Callable[[], dict[str, Any]],
            cost: Cost = cost,
            save: Any = save,
        ) -> None:
            start = time.perf_counter()
            save(self, server_round, state)
            cost.seconds += time.perf_counter() - start
            cost.made += 1

        run = RunInfo(job.config, where, job.overrides)
        with mock.patch.object(RunKeeper, "save", timed):
            runner.run_job(run)
        table = pd.read_csv(where / "timings.csv")
        found.append((run.name, cost, float(table[table["round"] > 0]["seconds"].sum())))
    return found


def main() -> None:
    """Run, and print a line a run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", nargs="*", choices=WORK, default=["W1", "W2"])
    parser.add_argument("overrides", nargs="*", help="for every run, such as dataset.root=data")
    args = parser.parse_args()
    lines = []
    for work in args.work:
        with tempfile.TemporaryDirectory() as folder:
            for name, cost, rounds in measured([*WORK[work][1], *args.overrides], Path(folder)):
                lines.append(
                    f"{work} {name}: {cost.made} checkpoints {cost.seconds:.3f} s, "
                    f"rounds {rounds:.3f} s, share {cost.seconds / rounds:.2%}"
                )
    print(*lines, sep="\n")


if __name__ == "__main__":
    main()
