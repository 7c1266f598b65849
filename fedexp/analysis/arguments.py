"""The options that programs over finished runs have in common."""

from __future__ import annotations

import argparse

from fedexp.analysis.comparison import BASELINE, Comparison, compare
from fedexp.analysis.results import Results


def add_comparison_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--by``, ``--target`` and ``--baseline``: how :func:`compared` compares."""
    parser.add_argument(
        "--by", default="", help="options that tell rows apart (default: strategy and what varies)"
    )
    parser.add_argument(
        "--target", type=_share, help="accuracy that 'rounds to' is about, in (0, 1]"
    )
    parser.add_argument(
        "--baseline", default=BASELINE, help="row that the others are tested against (%(default)s)"
    )


def compared(found: Results, args: argparse.Namespace) -> Comparison:
    """Compare runs as the options say.

    Raises:
        ValueError: As :func:`fedexp.analysis.comparison.compare`.
    """
    by = [key for key in args.by.split(",") if key]
    return compare(found, by, args.target, args.baseline)


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"must be > 0 and <= 1, got {text}")
    return value
