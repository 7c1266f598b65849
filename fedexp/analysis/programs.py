"""``fedexp compare`` and ``fedexp report``: programs over finished runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from fedexp.analysis import results
from fedexp.analysis.arguments import add_comparison_options, compared, compared_by
from fedexp.analysis.comparison import Comparison
from fedexp.analysis.factors import STRATEGY, resolve
from fedexp.analysis.pivot import SPREADS, Pivot, pivot
from fedexp.analysis.results import Results
from fedexp.analysis.tables import FORMATS, next_step, render
from fedexp.core.commands import parser_of
from fedexp.core.terminal import fitted, printable, width

COMPARE = """Compare the runs below a folder: strategies with each other and with isolated clients.

    fedexp compare results/lesson
    fedexp compare results/lesson --by strategy --format markdown
    fedexp compare results/sweep --rows strategy --columns partition.alpha
    fedexp compare results/lesson --clients > gains.csv
    fedexp compare results/lesson --figures figures

Exits with 1 if a run did not complete (the others are compared), with 2 if there is nothing to compare.
"""

REPORT = """Write what the runs below a folder found into one HTML file that needs nothing else.

    fedexp report results/lesson
    fedexp report results/lesson --by strategy --output lesson.html

Exits with 1 if a run did not complete (the report says so), with 2 if there is nothing to report.
"""


def compare_program(arguments: Sequence[str]) -> None:
    """Print the tables that a multirun ends with."""
    parser = parser_of("compare", COMPARE)
    parser.add_argument(
        "folder", type=Path, nargs="+", help="a run, a multirun, or any folder above them"
    )
    add_comparison_options(parser)
    parser.add_argument(
        "--rows", metavar="OPTIONS", help="one metric as a paper's table: what goes down (strategy)"
    )
    parser.add_argument(
        "--columns", metavar="OPTIONS", help="what goes across, such as partition.alpha"
    )
    parser.add_argument(
        "--metric", help="a column of --format csv: gain, rounds_to_target (default: accuracy)"
    )
    parser.add_argument(
        "--spread",
        choices=SPREADS,
        default="interval",
        help="behind ± in such a table (%(default)s)",
    )
    parser.add_argument("--format", choices=[*FORMATS, "csv"], default="table")
    parser.add_argument(
        "--clients", action="store_true", help="the gain of every client in every run, as CSV"
    )
    parser.add_argument(
        "--figures", type=Path, metavar="FOLDER", help="where every figure goes, as PNG and SVG"
    )
    args = parser.parse_args(arguments)
    try:
        found = results.load(*args.folder)
        table = None
        if args.rows or args.columns or args.metric:
            comparison, table = _pivoted(found, args)
        else:
            comparison = compared(found, args)
        written = _draw(found, comparison, args.figures) if args.figures else []
    except (OSError, ValueError) as error:
        _refuse("compare", str(error))
    if args.clients:
        print(comparison.gains.to_csv(index=False), end="")
    elif table is not None:
        print(printable(table.render(args.format, width())))
        for note in comparison.notes if args.format == "table" else ():
            print(printable(fitted(f"note: {note}")))
    else:
        print(printable(render(comparison, args.format, width())))
    if args.format == "table" and not args.clients and len(args.folder) == 1:
        print(f"\n{next_step('report', args.folder[0])}")
    numbers = args.clients or args.format == "csv"
    lines = [f"note: {note}" for note in comparison.notes] if numbers else []
    for line in [*lines, *(f"wrote {path}" for path in written)]:
        out = sys.stderr if numbers else sys.stdout  # not among the numbers
        print(printable(line, out.encoding), file=out)
    sys.exit(1 if found.problems() else 0)


def report_program(arguments: Sequence[str]) -> None:
    """Write the report and print its path."""
    from fedexp.analysis import report

    parser = parser_of("report", REPORT)
    parser.add_argument("folder", type=Path, help="a run, a multirun, or any folder above them")
    parser.add_argument("--output", type=Path, help="where to write (default: FOLDER/report.html)")
    add_comparison_options(parser)
    args = parser.parse_args(arguments)
    output: Path = args.output or args.folder / "report.html"
    try:
        found = results.load(args.folder)
        comparison = compared(found, args) if found.completed else None
    except (FileNotFoundError, ValueError) as error:
        _refuse("report", str(error))
    # of a multirun: the experiment and the stamp
    title = "/".join(args.folder.resolve().parts[-2:])
    page = report.render(found, comparison, title)
    try:
        output.write_text(page, encoding="utf-8")
    except OSError as error:
        _refuse("report", f"{output}: {error.strerror}")
    print(printable(str(output)))
    print("next: open it in a browser, or send it on: it needs no other file")
    sys.exit(1 if found.problems() else 0)


def _pivoted(found: Results, args: argparse.Namespace) -> tuple[Comparison, Pivot]:
    """Compare by the factors of a pivot table alone.

    Raises:
        ValueError: As :func:`fedexp.analysis.comparison.compare`, or if two options exclude each other.
    """
    if args.by:
        raise ValueError("--by goes without --rows and --columns, which say the same")
    rows = [resolve(found, key, "--rows") for key in _words(args.rows or STRATEGY)]
    columns = [resolve(found, key, "--columns") for key in _words(args.columns or "")]
    comparison = compared_by(found, [*rows, *columns], args)
    return comparison, pivot(comparison, rows, columns, args.metric, args.spread)


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _draw(found: Results, comparison: Comparison, folder: Path) -> list[Path]:
    """Write every figure that the runs have the numbers for."""
    from fedexp.analysis import figures  # a second, which the tables alone need not wait for

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--figures {folder}: {error.strerror}; it must be a folder") from error
    written = []
    for name, _, figure in figures.every(found, comparison):
        figures.explain(figure, _about(comparison))  # a single file has no page around it
        written += figures.save(figure, folder / name)
    return written


def _about(comparison: Comparison) -> str:
    return " ".join([f"Runs: {comparison.about}.", *comparison.selection])


def _refuse(name: str, reason: str) -> NoReturn:
    print(f"fedexp {name}: {reason}", file=sys.stderr)
    sys.exit(2)
