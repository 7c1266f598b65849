"""Compare the runs below a folder: python scripts/compare.py results/<sweep>."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fedexp.results import closing_table


def main() -> None:
    """Print the table that a multirun ends with; exit with 1 if a run did not complete."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="a run, a multirun, or any folder above them")
    text, all_completed = closing_table(parser.parse_args().folder)
    print(text)
    sys.exit(0 if all_completed else 1)


if __name__ == "__main__":
    main()
