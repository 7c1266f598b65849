"""Write what the runs below a folder found into one HTML file that needs no network and no other file.

    python scripts/report.py results/lesson
    python scripts/report.py results/lesson --by strategy,partition.alpha --output alpha.html

Exits with 1 if a run did not complete (the report says so), with 2 if there is nothing to report.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NoReturn

from fedexp.analysis import report, results
from fedexp.analysis.arguments import add_comparison_options, compared


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
    except (FileNotFoundError, ValueError) as error:
        _refuse(str(error))
    title = "/".join(
        args.folder.resolve().parts[-2:]
    )  # of a multirun: the experiment and the stamp
    page = report.render(found, comparison, title)
    try:
        output.write_text(page, encoding="utf-8")
    except OSError as error:
        _refuse(f"{output}: {error.strerror}")
    print(output)
    sys.exit(1 if found.problems() else 0)


def _refuse(reason: str) -> NoReturn:
    print(f"report: {reason}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
