"""``fedexp reproduce``: published experiments, run again, and their numbers compared with ours."""

from __future__ import annotations

import argparse
import csv
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from fedexp.analysis import results
from fedexp.analysis.results import Results
from fedexp.core.commands import command, parser_of
from fedexp.core.options import FedexpError
from fedexp.core.output import complain
from fedexp.reproduce.lines import COLUMNS, Line, curve
from fedexp.reproduce.published import EXPERIMENTS, Experiment
from fedexp.reproduce.running import FILE, Reproduction, new_folder, read, run_parts

DESCRIPTION = """Run a published experiment and compare its numbers with ours, a line each.

    fedexp reproduce lesson dataset.root=data
    fedexp reproduce niid_bench --quick dataset.root=data
    fedexp reproduce niid_bench --resume results/niid_bench/FOLDER

Exits with 1 if a number is out of tolerance. The runs stay in results/NAME/; their numbers go to
results/reference/NAME.csv if the experiment was run as it is defined, those of --quick to
NAME_quick.csv. Further arguments are Hydra overrides: `dataset.root`, `backend.*` and `tracking.*` leave
the experiment what it is, others do not. Ctrl-C stops a long one, and says where it stands and how it
goes on.
"""

REFERENCE = Path("results") / "reference"
HARMLESS = ("dataset.root=", "backend", "tracking")


def reproduce_program(arguments: Sequence[str]) -> None:
    """Run, compare, write the reference table, exit with 0 if no line fails."""
    parser = parser_of("reproduce", DESCRIPTION)
    parser.add_argument(
        "name", choices=EXPERIMENTS, metavar="NAME", help=f"one of {', '.join(EXPERIMENTS)}"
    )
    parser.add_argument(
        "--quick", action="store_true", help="its short form, minutes instead of hours"
    )
    parser.add_argument(
        "--resume",
        type=Path,
        metavar="FOLDER",
        help="go on with what was begun in results/NAME/...",
    )
    parser.add_argument(
        "overrides", nargs="*", default=[], help="Hydra overrides such as dataset.root=data"
    )
    args = parser.parse_intermixed_args(arguments)
    if args.quick and EXPERIMENTS[args.name].quick is None:
        parser.error(f"{args.name} takes a minute as it is: no --quick")
    try:
        job, folder = _begun(args) if args.resume is not None else _new(args)
    except FedexpError as error:
        complain("fedexp reproduce", error)
        sys.exit(2)
    further = [] if args.resume is None else args.overrides
    code = run_parts(job, folder, further)
    if code == 0:
        code = _compare(job, folder)
    elif args.resume is None and _remove_if_never_begun(folder):
        sys.exit(code)
    else:
        _say_where_it_stands(folder, job.experiment)
        print(f"go on: {command('reproduce', args.name, '--resume', str(folder))}")
    sys.exit(code)


def _new(args: argparse.Namespace) -> tuple[Reproduction, Path]:
    """Return what is to be run and where, and note it there."""
    job = Reproduction(args.name, args.quick, tuple(args.overrides))
    folder = new_folder(args.name)
    job.write(folder)
    return job, folder


def _begun(args: argparse.Namespace) -> tuple[Reproduction, Path]:
    """Return what was begun in a folder.

    Raises:
        FedexpError: If it is not what the command says.
    """
    job = read(args.resume, args.name)
    if args.quick and not job.quick:
        raise FedexpError(f"--resume {args.resume}: it was begun without --quick; leave that out")
    for override in args.overrides:
        if not override.startswith(HARMLESS):
            raise FedexpError(
                f"--resume {args.resume}: {override}: would make this another experiment; what may "
                "differ from before is dataset.root, backend and tracking"
            )
    return job, args.resume


def _compare(job: Reproduction, folder: Path) -> int:
    """Print the lines and write them; return the exit code."""
    experiment, check = job.experiment, job.experiment.check
    if job.quick:
        quick = experiment.quick
        if quick is None or quick.check is None:
            _say_where_it_stands(folder, experiment)
            return 0
        check = quick.check
    found = results.load(folder)
    if len(found.runs) != experiment.runs:
        print(
            f"fedexp reproduce: {job.name} is {experiment.runs} run(s), the overrides made "
            f"{len(found.runs)} of it: give one value each ({folder} keeps them)",
            file=sys.stderr,
        )
        return 1
    if len(found.ended) != experiment.runs:  # changed or removed since
        for problem in found.problems():
            complain("fedexp reproduce", problem)
        return 1
    try:
        lines = check(found)
    except FedexpError as error:
        complain("fedexp reproduce", error)
        return 1
    for line in lines:
        print(f"{_MARKS[line.passed]}  {line}")
    if job.quick and experiment.quick is not None:
        print(experiment.quick.shows)
    if all(override.startswith(HARMLESS) for override in job.overrides):
        _write(job, lines, found)
    else:
        print("not written: overrides make this another experiment")
    return int(any(line.passed is False for line in lines))


_MARKS = {True: "pass", False: "FAIL", None: "    "}


def _remove_if_never_begun(folder: Path) -> bool:
    """Remove the folder of a command that was refused before it wrote anything; say whether it was."""
    if [path.name for path in folder.iterdir()] != [FILE]:
        return False
    (folder / FILE).unlink()
    for empty in (folder, *folder.parents[:2]):  # results/NAME/..., where nothing else was in them
        if any(empty.iterdir()):
            break
        empty.rmdir()
    return True


def _say_where_it_stands(folder: Path, experiment: Experiment) -> None:
    try:
        found = results.load(folder)
    except FileNotFoundError:
        return  # stopped before its first run began
    for run, strategy in found.runs["strategy"].astype(str).items():
        by_round = curve(found, int(str(run)))
        if len(by_round):
            which = (
                f"{found.path(int(str(run))).relative_to(folder)}: " if len(found.runs) > 1 else ""
            )
            print(
                f"{which}{strategy} after round {by_round.index[-1]}: accuracy "
                f"{by_round.iloc[-1]:.3f}, best {by_round.max():.3f} (round {by_round.idxmax()})"
            )
    print(f"published: {experiment.published}")


def _write(job: Reproduction, lines: Sequence[Line], found: Results) -> None:
    """Write the table, with the command, date and versions that made it as comments on top."""
    environment = results.environment(found.path(0))
    versions = ", ".join(
        f"{key} {environment['packages'][key]}" for key in ("flwr", "ray", "torch", "numpy")
    )
    REFERENCE.mkdir(parents=True, exist_ok=True)
    quick = job.experiment.quick.overrides if job.quick and job.experiment.quick else ()
    path = REFERENCE / f"{job.name}{'_quick' if job.quick else ''}.csv"
    with path.open("w", newline="") as file:
        commands = "; ".join(
            f"fedexp {shlex.join([*part.overrides, *quick])}" for part in job.experiment.parts
        )
        file.write(
            f"# fedexp reproduce {job.name}{' --quick' if job.quick else ''}  ({commands})\n"
        )
        file.write(
            f"# {environment['started']}, Python {environment['python']}, {versions}, "
            f"{environment['processor']}, {environment['cpus']} CPUs\n"
        )
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow([*COLUMNS, "pass"])
        for line in lines:
            rows.writerow([*line.row(), {True: "yes", False: "no", None: ""}[line.passed]])
    print(f"written: {path}")
