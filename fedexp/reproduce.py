"""``fedexp reproduce``: published experiments, run again, and their numbers compared with ours."""

from __future__ import annotations

import csv
import math
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from fedexp.analysis import results
from fedexp.analysis.results import ISOLATED, Results
from fedexp.core.commands import parser_of

DESCRIPTION = """Run a published experiment and compare its numbers with ours, a line each.

    fedexp reproduce lesson dataset.root=data
    fedexp reproduce niid_fmnist --quick dataset.root=data

Exits with 1 if a number is out of tolerance. The runs stay in results/NAME/; their numbers go to
results/reference/NAME.csv if the experiment was run as it is defined. Further arguments are Hydra
overrides: `dataset.root`, `backend.*` and `tracking.*` leave the experiment what it is, others do not.
Ctrl-C stops a long one and says where it stands.
"""

REFERENCE = Path("results") / "reference"
HARMLESS = ("dataset.root=", "backend", "tracking")


@dataclass(frozen=True)
class Check:
    """One published figure, ours, and how far apart they may lie."""

    what: str
    published: float
    tolerance: float
    ours: float

    @property
    def passed(self) -> bool:
        """Whether ours is within the tolerance (both ends included)."""
        return abs(self.ours - self.published) <= self.tolerance + 1e-12


@dataclass(frozen=True)
class Experiment:
    """A published experiment, run by ``fedexp experiment=NAME``.

    Attributes:
        published: What was published, in words.
        check: From completed runs to the checks.
        runs: How many runs it consists of.
        quick_rounds: Rounds of ``--quick``; None where the whole takes a minute.
    """

    published: str
    check: Callable[[Results], list[Check]]
    runs: int = 1
    quick_rounds: int | None = None


def lesson(found: Results) -> list[Check]:
    """Check the course lesson: three clients, each without three digits.

    The published run is one draw of weights and batches, so accuracies are allowed to differ as much
    as seeds differ (the first round most); sizes of the partition and zeros must be exact.
    """
    isolated = found.runs["kind"] == ISOLATED
    (federated,), (alone,) = found.runs.index[~isolated], found.runs.index[isolated]
    sizes = results.partition(found.path(federated))["num_examples"]
    checks = [
        Check(f"images of client {client}", published, 0, sizes[client])
        for client, published in enumerate((13_729, 14_284, 14_185))
    ]
    finals = found.finals[
        (found.finals["split"] == "test") & (found.finals["metric"] == "accuracy")
    ]
    by_client = finals[finals["run"] == alone].set_index(["client", "subset"])["value"]
    unseen = ("1-3-7", "2-5-8", "4-6-9")
    for client, published in enumerate((0.657, 0.688, 0.685)):
        name = f"isolated client {client}, all digits"
        checks.append(Check(name, published, 0.03, by_client[client, "all"]))
        name = f"isolated client {client}, unseen {unseen[client]}"
        checks.append(Check(name, 0.0, 0.0, by_client[client, unseen[client]]))
    by_round = _curve(found, federated)
    for server_round, published, tolerance in (
        (1, 0.855, 0.05),
        (2, 0.951, 0.01),
        (3, 0.961, 0.01),
    ):
        name = f"federated, all digits, round {server_round}"
        checks.append(Check(name, published, tolerance, by_round[server_round]))
    final = finals[finals["run"] == federated].set_index("subset")["value"]
    for subset, published in zip(unseen, (0.967, 0.956, 0.949), strict=True):
        checks.append(Check(f"federated, {subset}", published, 0.02, final[subset]))
    return checks


def mcmahan_2nn(found: Results) -> list[Check]:
    """Check the rounds to 97 % of McMahan et al. (arXiv 1602.05629), table 2, within half.

    A run that never gets there fails.
    """
    curve = _curve(found, 0)
    there = curve.index[curve >= 0.97]
    rounds = float(there.min()) if len(there) else math.inf
    return [Check("rounds to 97 % of test digits", 87, 43.5, rounds)]


def niid_fmnist(found: Results) -> list[Check]:
    """Check the best round of FedAvg on Fashion-MNIST, labels by Dir(0.5) (arXiv 2102.02079)."""
    return [Check("best accuracy in 50 rounds", 0.88, 0.02, _curve(found, 0).max())]


EXPERIMENTS = {
    "lesson": Experiment(
        "isolated 0.657 / 0.688 / 0.685, federated 0.961 in round 3", lesson, runs=2
    ),
    "mcmahan_2nn": Experiment("97 % of the test digits in round 87", mcmahan_2nn, quick_rounds=20),
    "niid_fmnist": Experiment("0.88 +- 0.02 at best in 50 rounds", niid_fmnist, quick_rounds=10),
}


def _curve(found: Results, run: int) -> pd.Series:
    """Return a run's accuracy on the whole test set by round."""
    curves = found.curves
    rows = curves[
        (curves["run"] == run)
        & (curves["split"] == "test")
        & (curves["subset"] == "all")
        & (curves["metric"] == "accuracy")
    ]
    return rows.set_index("round")["value"]


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
    code = _run([f"experiment={args.name}", *overrides], folder)
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
        verdict = "pass" if line.passed else "FAIL"
        print(
            f"{verdict}  {line.what:38} ours {_figure(line.ours):>7}  "
            f"published {_figure(line.published):>7} +- {line.tolerance:g}"
        )
    if all(override.startswith(HARMLESS) for override in overrides):
        _write(args.name, checks, found)
    else:
        print("not written: overrides make this another experiment")
    sys.exit(0 if all(line.passed for line in checks) else 1)


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
        curve = _curve(found, int(str(run)))
        if len(curve):
            print(
                f"{strategy} after round {curve.index[-1]}: accuracy "
                f"{curve.iloc[-1]:.3f}, best {curve.max():.3f} (round {curve.idxmax()})"
            )
    print(f"published: {experiment.published}")


def _figure(value: float) -> str:
    return f"{value:.3f}" if value <= 1 else f"{value:,.0f}"


def _write(name: str, checks: list[Check], found: Results) -> None:
    """Write the table, with the command, date and versions that made it as comments on top."""
    environment = results.environment(found.path(0))
    versions = ", ".join(
        f"{key} {environment['packages'][key]}" for key in ("flwr", "ray", "torch", "numpy")
    )
    REFERENCE.mkdir(parents=True, exist_ok=True)
    path = REFERENCE / f"{name}.csv"
    with path.open("w", newline="") as file:
        file.write(f"# fedexp reproduce {name}  (fedexp experiment={name})\n")
        file.write(
            f"# {environment['started']}, Python {environment['python']}, {versions}, "
            f"{environment['processor']}, {environment['cpus']} CPUs\n"
        )
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["figure", "ours", "published", "tolerance", "pass"])
        for line in checks:
            row = [line.what, round(float(line.ours), 4), line.published, line.tolerance]
            rows.writerow([*row, "yes" if line.passed else "no"])
    print(f"written: {path}")
