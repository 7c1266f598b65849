"""Write what the runs below a folder found into one HTML file that needs no network and no other file.

    python scripts/report.py results/lesson
    python scripts/report.py results/lesson --by strategy,partition.alpha --output alpha.html

Exits with 1 if a run did not complete (the report says so), with 2 if there is nothing to report.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fedexp import report, results
from fedexp.arguments import add_comparison_options, compared


def main() -> None:
    """Write the report and print its path."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="a run, a multirun, or any folder above them")
    parser.add_argument("--output", type=Path, help="where to write (default: FOLDER/report.html)")
    add_comparison_options(parser)
    args = parser.parse_args()
    output: Path = args.output or args.folder / "report.html"
    try:
        found = results.load(args.folder)
        comparison = compared(found, args) if found.completed else None
        output.write_text(report.render(found, comparison, str(args.folder)), encoding="utf-8")
    except OSError as error:
        print(f"report: {_one_line(error)}", file=sys.stderr)
        sys.exit(2)
    except ValueError as error:
        print(f"report: {error}", file=sys.stderr)
        sys.exit(2)
    print(output)
    sys.exit(1 if found.problems() else 0)


def _one_line(error: OSError) -> str:
    """Return the file and the reason of an error of the system; our own have a text alone."""
    return f"{error.filename}: {error.strerror}" if error.strerror else str(error)


if __name__ == "__main__":
    main()
