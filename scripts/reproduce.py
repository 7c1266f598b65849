"""Run a published experiment and hold its figures against ours, a line each.

    python scripts/reproduce.py lesson dataset.root=data

Writes results/reference/NAME.csv, the figures of this run, and exits with 1 if one is out of tolerance.
Further arguments are Hydra overrides. `ours` is the figure of the final round unless the line says
which round.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fedexp.results import ISOLATED, Run, load

REFERENCE = Path(__file__).parents[1] / "results" / "reference"


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
        return abs(self.ours - self.published) <= self.tolerance


def lesson(runs: list[Run]) -> list[Check]:
    """Check the course lesson: three clients, each without three digits.

    The published run is one draw of weights and batches, so accuracies are allowed to differ as much
    as seeds differ (the first round most); sizes of the partition and zeros must be exact.
    """
    federated = next(run for run in runs if run.summary["strategy"] != ISOLATED)
    alone = next(run for run in runs if run.summary["strategy"] == ISOLATED).final()
    sizes = json.loads((federated.path / "partition.json").read_text())["num_examples"]
    checks = [
        Check(f"images of client {client}", published, 0, sizes[client])
        for client, published in enumerate((13_729, 14_284, 14_185))
    ]
    unseen = ("1-3-7", "2-5-8", "4-6-9")
    for client, published in enumerate((0.657, 0.688, 0.685)):
        checks.append(
            Check(f"isolated client {client}, all digits", published, 0.03, alone["all"][client])
        )
        name = f"isolated client {client}, unseen {unseen[client]}"
        checks.append(Check(name, 0.0, 0.0, alone[unseen[client]][client]))
    curve = federated.metrics.query("split == 'test' and metric == 'accuracy' and subset == 'all'")
    by_round = curve.set_index("round")["value"]
    for server_round, published, tolerance in (
        (1, 0.855, 0.05),
        (2, 0.951, 0.01),
        (3, 0.961, 0.01),
    ):
        name = f"federated, all digits, round {server_round}"
        checks.append(Check(name, published, tolerance, by_round[server_round]))
    final = federated.final().iloc[0]
    for subset, published in zip(unseen, (0.967, 0.956, 0.949), strict=True):
        checks.append(Check(f"federated, {subset}", published, 0.02, final[subset]))
    return checks


def mcmahan_2nn(runs: list[Run]) -> list[Check]:
    """Check the rounds to 97 % of McMahan et al. (arXiv 1602.05629), table 2, within half.

    A run that never gets there counts as twice its rounds.
    """
    (run,) = runs
    curve = run.metrics.query("split == 'test' and metric == 'accuracy' and subset == 'all'")
    there = curve.loc[curve["value"] >= 0.97, "round"]
    rounds = float(there.min()) if len(there) else 2.0 * curve["round"].max()
    return [Check("rounds to 97 % of test digits", 87, 43.5, rounds)]


EXPERIMENTS: dict[str, tuple[list[str], Callable[[list[Run]], list[Check]]]] = {
    "lesson": (["+experiment=lesson"], lesson),
    "mcmahan_2nn": (["+experiment=mcmahan_2nn"], mcmahan_2nn),
}


def main() -> None:
    """Run, compare, write the reference table, exit with 0 if every line passes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=EXPERIMENTS)
    parser.add_argument("overrides", nargs="*", help="Hydra overrides such as dataset.root=data")
    args = parser.parse_args()
    overrides, check = EXPERIMENTS[args.name]
    with tempfile.TemporaryDirectory() as folder:
        command = [
            "-m",
            "fedexp",
            *overrides,
            *args.overrides,
            f"hydra.sweep.dir={folder}",
            f"hydra.run.dir={folder}",
        ]
        code = subprocess.run([sys.executable, *command], check=False).returncode
        if code:
            sys.exit(code)
        checks = check(load(Path(folder)))
        environment = json.loads(next(Path(folder).rglob("environment.json")).read_text())
    for line in checks:
        verdict = "pass" if line.passed else "FAIL"
        print(
            f"{verdict}  {line.what:38} ours {_figure(line.ours):>7}  "
            f"published {_figure(line.published):>7} +- {line.tolerance:g}"
        )
    _write(args.name, overrides, checks, environment)
    sys.exit(0 if all(line.passed for line in checks) else 1)


def _figure(value: float) -> str:
    return f"{value:.3f}" if value <= 1 else f"{value:,.0f}"


def _write(
    name: str, overrides: list[str], checks: list[Check], environment: dict[str, object]
) -> None:
    """Write the table, with the command, date and versions that made it as comments on top."""
    REFERENCE.mkdir(parents=True, exist_ok=True)
    packages = environment["packages"]
    assert isinstance(packages, dict)
    versions = ", ".join(f"{key} {packages[key]}" for key in ("flwr", "ray", "torch", "numpy"))
    path = REFERENCE / f"{name}.csv"
    with path.open("w", newline="") as file:
        file.write(f"# python scripts/reproduce.py {name}  (fedexp {' '.join(overrides)})\n")
        file.write(
            f"# {environment['started']}, Python {environment['python']}, {versions}, "
            f"{environment['processor']}, {environment['cpus']} CPUs\n"
        )
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["figure", "ours", "published", "tolerance", "pass"])
        for line in checks:
            row = [line.what, round(float(line.ours), 4), line.published, line.tolerance]
            rows.writerow([*row, "yes" if line.passed else "no"])
    print(f"written: {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")


if __name__ == "__main__":
    main()
