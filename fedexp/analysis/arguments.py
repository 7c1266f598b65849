"""The options that programs over finished runs have in common."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from fedexp.analysis.comparison import BASELINE, Comparison, compare
from fedexp.analysis.factors import MAX_NAMED
from fedexp.analysis.results import Results


def add_comparison_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--by``, ``--target`` and ``--baseline``: how :func:`compared` compares."""
    parser.add_argument(
        "--by", default="", help="options that tell rows apart (default: strategy and what varies)"
    )
    parser.add_argument(
        "--target", type=float, help="accuracy that 'rounds to' is about, in (0, 1]"
    )
    parser.add_argument("--baseline", help=f"row that the others are tested against ({BASELINE})")


def compared(found: Results, args: argparse.Namespace) -> Comparison:
    """Compare runs as the options say.

    Raises:
        ValueError: As :func:`fedexp.analysis.comparison.compare`, or if no row is called as
            ``--baseline`` says.
    """
    by = [key for key in args.by.split(",") if key]
    return compared_by(found, by, args)


def compared_by(found: Results, by: Sequence[str], args: argparse.Namespace) -> Comparison:
    """Compare runs by given options, else as the options say.

    Raises:
        ValueError: As :func:`compared`.
    """
    comparison = compare(found, by, args.target, args.baseline or BASELINE)
    labels = comparison.labels
    rows = list(dict.fromkeys([*found.runs["strategy"].loc[labels.index].astype(str), *labels]))
    if args.baseline and args.baseline not in rows:
        listed = ", ".join(rows[:MAX_NAMED]) + (", ..." if len(rows) > MAX_NAMED else "")
        raise ValueError(
            f"--baseline {args.baseline}: no row is called so; it must be one of {listed}"
        )
    return comparison
