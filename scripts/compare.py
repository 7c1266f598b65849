"""Compare the runs below a folder: strategies against each other and against isolated clients.

    python scripts/compare.py results/lesson
    python scripts/compare.py results/lesson --by strategy,partition.alpha --format markdown
    python scripts/compare.py results/lesson --clients > gains.csv
    python scripts/compare.py results/lesson --figures figures

Exits with 1 if a run did not complete (the others are compared), with 2 if there is nothing to compare.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from fedexp.analysis import results
from fedexp.analysis.arguments import add_comparison_options, compared
from fedexp.analysis.comparison import Comparison
from fedexp.analysis.results import Results
from fedexp.analysis.tables import FORMATS, render


def main() -> None:
    """Print the tables that a multirun ends with."""
    if hasattr(signal, "SIGPIPE"):
        signal.signal(
            signal.SIGPIPE, signal.SIG_DFL
        )  # `| head` ends the program, not in a traceback
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folder", type=Path, nargs="+", help="a run, a multirun, or any folder above them"
    )
    add_comparison_options(parser)
    parser.add_argument("--format", choices=[*FORMATS, "csv"], default="table")
    parser.add_argument(
        "--clients", action="store_true", help="the gain of every client in every run, as CSV"
    )
    parser.add_argument(
        "--figures", type=Path, metavar="FOLDER", help="where every figure goes, as PNG and SVG"
    )
    args = parser.parse_args()
    try:
        found = results.load(*args.folder)
        comparison = compared(found, args)
        written = _draw(found, comparison, args.figures) if args.figures else []
    except (OSError, ValueError) as error:
        print(f"compare: {error}", file=sys.stderr)
        sys.exit(2)
    if args.clients:
        print(comparison.gains.to_csv(index=False), end="")
    else:
        print(render(comparison, args.format))
    numbers = args.clients or args.format == "csv"
    lines = [f"note: {note}" for note in comparison.notes] if numbers else []
    for line in [*lines, *(f"wrote {path}" for path in written)]:
        print(line, file=sys.stderr if numbers else sys.stdout)  # not among the numbers
    sys.exit(1 if found.problems() else 0)


def _draw(found: Results, comparison: Comparison, folder: Path) -> list[Path]:
    """Write every figure that the runs have the numbers for."""
    from fedexp.analysis import figures  # a second, which the tables alone need not wait for

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--figures {folder}: {error.strerror}; it must be a folder") from error
    written = []
    for name, _, figure in figures.every(found, comparison):
        written += figures.save(figure, folder / name)
    return written


if __name__ == "__main__":
    main()
