"""Time the backends against a plain PyTorch loop, all in one run.

    python scripts/benchmark.py dataset.root=data               the usual work items, one table
    python scripts/benchmark.py --work W3 --repeat 3            one item, medians of three passes
    python scripts/benchmark.py --write docs/performance.md ...  the table as a page, too

Every row is a process of its own, as a user would start it. `round` is the median over rounds of
training, aggregation and evaluation; `end` is from the last round to the exit (figures, shutdown);
`start` is what is left of the total: imports, Ray's start, reading data; in a multirun also what lies
between jobs, and nan where they may run side by side. `memory` is the peak of the private pages of the
process and its children plus the largest shared part (mapped files and Ray's object store); `driver` is
the peak of the process alone, all that it has mapped included; `store` is what went through Ray's
object store, all nodes and sessions together. The floor is `scripts/floor.py`, which
does the same SGD steps and nothing else. Work items that take long, or are about memory, run where they
are asked for (`--work W6 --modes "ray, 2 workers"`).
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import statistics
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from measure import Timing, measure
from rich.console import Console
from rich.table import Table

from fedexp.core.machine import usable_cpus

DEVICES = [
    "dataset=mnist",
    "partition=iid",
    "clients=cross_device",
    "training.local_epochs=1",
    "training.batch_size=10",
    "training.learning_rate=0.05",
    "training.momentum=0",
]
SAMPLED = ["partition.samples_per_client=60", "clients.fraction_train=1.0", "rounds=10"]
MANY = [
    *DEVICES,
    "partition=resample",
    "partition.samples_per_client=60",
    "rounds=5",
]
LARGE = [
    "model=cnn",
    "clients.num=10000",
    "clients.fraction_train=0.2",
    "training.local_steps=1",
    "rounds=1",
]
WORK = {
    "W0": ("the first command: fedexp", []),
    "W1": ("100 clients of 600, 10 sampled, 20 rounds", [*DEVICES, "rounds=20"]),
    "W2": ("the lesson, isolated clients included", ["experiment=lesson"]),
    "W3": (
        "1,000 clients of 60, 100 sampled, 10 rounds",
        [*DEVICES, "clients.num=1000", "rounds=10"],
    ),
    "S": ("100 clients of 60, all sampled, 10 rounds", [*DEVICES, *SAMPLED]),
    "W4": (
        "10 clients of 6,000, McMahan's CNN, one epoch in batches of 50, 2 rounds",
        [*DEVICES, "clients=cross_silo", "model=cnn", "training.batch_size=50", "rounds=2"],
    ),
    "W5": (
        "100,000,000 clients of 60, 1,000 sampled, 5 rounds",
        [*MANY, "clients.num=100000000", "clients.fraction_train=0.00001"],
    ),
    "W5s": (
        "the same with 100,000 clients: a round should cost the same",
        [*MANY, "clients.num=100000", "clients.fraction_train=0.01"],
    ),
    "W6": ("10,000 clients, 2,000 sampled, McMahan's CNN, one step each", [*DEVICES, *LARGE]),
    "W6m": (
        "the same, the median of every coordinate",
        [*DEVICES, *LARGE, "strategy=fedmedian"],
    ),
    "W7": (
        "60 short runs: 4 strategies, 5 learning rates, 3 seeds",
        [
            "-m",
            "strategy=fedavg,fedadam,fedmedian,scaffold",
            "training.learning_rate=0.003,0.01,0.03,0.1,0.3",
            "seed=0,1,2",
        ],
    ),
}
USUAL = ("W0", "W1", "W2", "W3", "S")
"""Those that run where none is asked for: with the others, Flower's runtime would take hours."""

MODES = {
    "floor": [],
    "inline": ["backend=inline"],
    "ray": [],
    "ray, 1 worker": ["backend.workers=1"],
    "ray, 2 workers": ["backend.workers=2"],
    "flower": ["backend=flower", "backend.workers=2"],
}
NOT_TIMED = {("W5", "flower"), ("W5s", "flower"), ("W7", "floor"), ("W7", "flower")}
"""Flower has a node for every client; the floor is one run."""


HEADS = (
    "work",
    "backend",
    "start",
    "round",
    "x floor",
    "end",
    "total",
    "x floor",
    "memory",
    "driver",
    "store",
)
UNITS = "Seconds, and MiB: medians. x floor: median over the passes."


def rows(timings: dict[tuple[str, str], list[Timing]]) -> list[list[str]]:
    """Return the table under :data:`HEADS`."""
    found = []
    for (work, mode), passes in timings.items():
        middle = {
            k: statistics.median(getattr(t, k) for t in passes) for k in Timing.__annotations__
        }
        floors = timings.get((work, "floor"), [])
        of_round, of_total = (_ratio(passes, floors, name) for name in ("round", "total"))
        start, end, total = (f"{middle[name]:.1f}" for name in ("start", "end", "total"))
        sizes = [f"{middle[name]:.0f}" for name in ("memory", "driver", "store")]
        seconds = f"{middle['round']:.3f}"
        found.append([work, mode, start, seconds, of_round, end, total, of_total, *sizes])
    return found


def _ratio(passes: list[Timing], floors: list[Timing], name: str) -> str:
    pairs = [(getattr(a, name), getattr(b, name)) for a, b in zip(passes, floors, strict=False)]
    return f"{statistics.median(mine / base for mine, base in pairs):.2f}" if pairs else ""


def report(table: list[list[str]]) -> None:
    """Print the table."""
    shown = Table(title=UNITS, title_justify="left")
    for number, column in enumerate(HEADS):
        shown.add_column(column, justify="left" if number < 2 else "right")
    for row in table:
        shown.add_row(*row)
    Console(width=110).print(shown)


def page(table: list[list[str]], works: list[str], words: list[str], repeat: int) -> str:
    """Return the table as a page of the documentation, with what made it.

    Args:
        table: From :func:`rows`.
        works: The work items in it.
        words: The command's arguments, without folders.
        repeat: Passes.
    """
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "flwr", "ray", "numpy"))
    align = "|".join(["---", "---", *["---:"] * (len(HEADS) - 2)])
    return "\n".join(
        [
            "# Performance",
            "",
            "Made by a command; run it again rather than edit this page:",
            "",
            f"    python scripts/benchmark.py {' '.join(words)}",
            "",
            f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {usable_cpus()} CPUs, Python "
            f"{platform.python_version()}, {packages}. {repeat} passes, interleaved.",
            "",
            *(f"- **{work}**: {WORK[work][0]}" for work in works),
            "",
            f"{UNITS} `--help` says what each column is, and what the floor does.",
            "",
            f"| {' | '.join(HEADS)} |",
            f"|{align}|",
            *(f"| {' | '.join(row)} |" for row in table),
            "",
        ]
    )


def main() -> None:
    """Run the passes, interleaved, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", nargs="*", choices=WORK, default=USUAL)
    parser.add_argument("--modes", nargs="*", choices=MODES, default=list(MODES))
    parser.add_argument("--repeat", type=int, default=1, help="passes over everything")
    parser.add_argument("--write", type=Path, help="write the table to this page, too")
    parser.add_argument("overrides", nargs="*", help="for every row, such as dataset.root=data")
    args = parser.parse_args()
    shared = [_absolute(item) for item in args.overrides]
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs")
    timings: dict[tuple[str, str], list[Timing]] = {}
    for _ in range(args.repeat):
        for work in args.work:
            print(f"{work}: {WORK[work][0]}", flush=True)
            for mode in (mode for mode in args.modes if (work, mode) not in NOT_TIMED):
                with tempfile.TemporaryDirectory() as folder:
                    timing = measure(_command(work, mode, shared), Path(folder))
                print(f"  {mode}: {timing.round:.3f} s a round, {timing.total:.1f} s", flush=True)
                timings.setdefault((work, mode), []).append(timing)
    table = rows(timings)
    report(table)
    if args.write:
        words = [_public(word) for word in sys.argv[1:]]
        args.write.write_text(page(table, args.work, words, args.repeat))


def _command(work: str, mode: str, shared: list[str]) -> list[str]:
    if mode == "floor":
        return [
            sys.executable,
            str(Path(__file__).with_name("floor.py").absolute()),
            *WORK[work][1],
            *shared,
        ]
    return [sys.executable, "-m", "fedexp", *WORK[work][1], *MODES[mode], *shared]


def _public(word: str) -> str:
    """Return an argument as a reader may type it: with quotes, and with a folder of her own."""
    return "dataset.root=data" if word.startswith("dataset.root=") else shlex.quote(word)


def _absolute(override: str) -> str:
    """Rows run in folders of their own, so a relative dataset.root must not stay relative."""
    key, _, value = override.partition("=")
    return f"{key}={Path(value).absolute()}" if key == "dataset.root" else override


if __name__ == "__main__":
    main()
