"""A run's past rounds, read back from its folder: what a mirror is told after a resumption."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from fedexp.federation.events import Failure, Measurement, RoundReport


def past_rounds(folder: Path) -> list[RoundReport]:
    """Return the reports of the rounds that a run's CSV files hold, the first one first."""
    reports: dict[int, RoundReport] = {}

    def report(server_round: str) -> RoundReport:
        number = int(server_round)
        return reports.setdefault(number, RoundReport(number))

    for row in _rows(folder / "metrics.csv"):
        client = int(row["client"]) if row["client"] else None
        place = int(row["round"]), row["model"], row["split"], row["subset"], client
        found = Measurement(*place, row["metric"], float(row["value"]))
        report(row["round"]).measurements.append(found)
    for row in _rows(folder / "timings.csv"):
        report(row["round"]).seconds[row["phase"]] = float(row["seconds"])
    for row in _rows(folder / "failures.csv"):
        failure = Failure(int(row["round"]), row["phase"], int(row["client"]), row["reason"])
        report(row["round"]).failures.append(failure)
    return [reports[number] for number in sorted(reports)]


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)
