"""Compare the runs below a folder: strategies against each other and against isolated clients.

    python scripts/compare.py results/lesson
    python scripts/compare.py results/lesson --by strategy,partition.alpha --format markdown
    python scripts/compare.py results/lesson --clients > gains.csv

Exits with 1 if a run did not complete (the others are compared), with 2 if there is nothing to compare.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fedexp import results
from fedexp.comparison import BASELINE, compare
from fedexp.tables import FORMATS, render


def main() -> None:
    """Print the tables that a multirun ends with."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folder", type=Path, nargs="+", help="a run, a multirun, or any folder above them"
    )
    parser.add_argument(
        "--by", default="", help="options that tell rows apart (default: strategy and what varies)"
    )
    parser.add_argument(
        "--target", type=_share, help="accuracy that 'rounds to' is about, in (0, 1]"
    )
    parser.add_argument(
        "--baseline", default=BASELINE, help="row that the others are tested against (%(default)s)"
    )
    parser.add_argument("--format", choices=[*FORMATS, "csv"], default="table")
    parser.add_argument(
        "--clients", action="store_true", help="the gain of every client in every run, as CSV"
    )
    args = parser.parse_args()
    try:
        found = results.load(*args.folder)
        by = [key for key in args.by.split(",") if key]
        comparison = compare(found, by, args.target, args.baseline)
    except (FileNotFoundError, ValueError) as error:
        print(f"compare: {error}", file=sys.stderr)
        sys.exit(2)
    if args.clients:
        print(comparison.gains.to_csv(index=False), end="")
    else:
        print(render(comparison, args.format))
    if args.clients or args.format == "csv":  # notes must not stand among the numbers
        print("\n".join(f"note: {note}" for note in comparison.notes), end="", file=sys.stderr)
    sys.exit(1 if found.problems() else 0)


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"must be > 0 and <= 1, got {text}")
    return value


if __name__ == "__main__":
    main()
