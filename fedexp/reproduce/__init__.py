"""``fedexp reproduce``: published experiments, run again, and their numbers compared with ours."""

from __future__ import annotations

import csv
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from fedexp.analysis import results
from fedexp.analysis.results import Results
from fedexp.core.commands import parser_of
from fedexp.reproduce.published import COLUMNS, EXPERIMENTS, Experiment, Line, curve

DESCRIPTION = """Run a published experiment and compare its numbers with ours, a line each.

    fedexp reproduce lesson dataset.root=data
    fedexp reproduce niid_fmnist --quick dataset.root=data
    fedexp reproduce synthetic

Exits with 1 if a number is out of tolerance. The runs stay in results/NAME/; their numbers go to
results/reference/NAME.csv if the experiment was run as it is defined. Further arguments are Hydra
overrides: `dataset.root`, `backend.*` and `tracking.*` leave the experiment what it is, others do not.
Ctrl-C stops a long one and says where it stands.
"""

REFERENCE = Path("results") / "reference"
HARMLESS = ("dataset.root=", "backend", "tracking")


def reproduce_program(arguments: Sequence[str]) -> None:
    """Run, compare, write the reference table, exit with 0 if every line passes."""
    parser = parser_of("reproduce", DESCRIPTION)
    parser.add_argument("name", choices=EXPERIMENTS)
    parser.add_argument("--quick", action="store_true", help="a few rounds, and where they stand")
    parser.add_argument(
        "overrides", nargs="*", default=[], help="Hydra overrides such as dataset.root=data"
    )
    args = parser.parse_intermixed_args(arguments)
    experiment = EXPERIMENTS[args.name]
    overrides = list(args.overrides)
    if args.quick:
        if experiment.quick_rounds is None:
            parser.error(f"{args.name} takes a minute as it is: no --quick")
        overrides.append(f"rounds={experiment.quick_rounds}")
    folder = (
        Path("results") / args.name / f"{time.strftime('%Y-%m-%d_%H-%M-%S')}-{secrets.token_hex(2)}"
    )
    code = _run_parts(args.name, experiment, overrides, folder)
    if code or args.quick:
        _say_where_it_stands(folder, experiment)
        sys.exit(code)
    found = results.load(folder)
    if len(found.runs) != experiment.runs:
        sys.exit(
            f"fedexp reproduce: {args.name} is {experiment.runs} run(s), the overrides made "
            f"{len(found.runs)} of it: give one value each ({folder} keeps them)"
        )
    checks = experiment.check(found)
    for line in checks:
        print(f"{'pass' if line.passed else 'FAIL'}  {line}")
    if all(override.startswith(HARMLESS) for override in overrides):
        _write(args.name, checks, found)
    else:
        print("not written: overrides make this another experiment")
    sys.exit(0 if all(line.passed for line in checks) else 1)


def _run_parts(name: str, experiment: Experiment, overrides: list[str], folder: Path) -> int:
    """Run the commands of an experiment, one after another, and return the first exit code but 0."""
    if not experiment.parts:
        return _run([f"experiment={name}", *overrides], folder)
    for number, part in enumerate(experiment.parts, 1):
        print(f"part {number} of {len(experiment.parts)}: fedexp {' '.join(part)}", flush=True)
        code = _run([*part, *overrides], folder / str(number))
        if code:
            return code
    return 0


def _run(overrides: list[str], folder: Path) -> int:
    """Run fedexp and return its exit code; what would end this process ends fedexp, and this goes on.

    fedexp has a process group of its own, so that a signal reaches it once: from here, whether it came
    from a terminal, to a whole group, or to this process alone.
    """
    where = [f"hydra.sweep.dir={folder}", f"hydra.run.dir={folder}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "fedexp", *overrides, *where], process_group=0
    )
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [
        signal.signal(number, lambda received, _: process.send_signal(received))
        for number in signals
    ]
    try:
        return process.wait()
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def _say_where_it_stands(folder: Path, experiment: Experiment) -> None:
    try:
        found = results.load(folder)
    except FileNotFoundError:
        return  # it was refused before it began, and has said why
    for run, strategy in found.runs["strategy"].astype(str).items():
        by_round = curve(found, int(str(run)))
        if len(by_round):
            print(
                f"{strategy} after round {by_round.index[-1]}: accuracy "
                f"{by_round.iloc[-1]:.3f}, best {by_round.max():.3f} (round {by_round.idxmax()})"
            )
    print(f"published: {experiment.published}")


def _write(name: str, checks: Sequence[Line], found: Results) -> None:
    """Write the table, with the command, date and versions that made it as comments on top."""
    environment = results.environment(found.path(0))
    versions = ", ".join(
        f"{key} {environment['packages'][key]}" for key in ("flwr", "ray", "torch", "numpy")
    )
    REFERENCE.mkdir(parents=True, exist_ok=True)
    path = REFERENCE / f"{name}.csv"
    with path.open("w", newline="") as file:
        parts = EXPERIMENTS[name].parts or ((f"experiment={name}",),)
        commands = "; ".join(f"fedexp {' '.join(part)}" for part in parts)
        file.write(f"# fedexp reproduce {name}  ({commands})\n")
        file.write(
            f"# {environment['started']}, Python {environment['python']}, {versions}, "
            f"{environment['processor']}, {environment['cpus']} CPUs\n"
        )
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow([*COLUMNS, "pass"])
        for line in checks:
            rows.writerow([*line.row(), "yes" if line.passed else "no"])
    print(f"written: {path}")
