"""What a terminal, or a file in its place, can show."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap

MIN_WIDTH, MAX_WIDTH = 60, 160

_PLAIN = str.maketrans(
    {
        **{"±": "+-", "−": "-", "–": "-", "→": "->", "…": "...", "†": "*", "×": "x"},
        **{"\u00a0": " ", "“": '"', "”": '"', "’": "'"},
    }
)


def width() -> int:
    """Return the characters of a line; 80 where nothing says how many, as in a pipe."""
    return min(MAX_WIDTH, max(MIN_WIDTH, shutil.get_terminal_size((80, 24)).columns))


def fitted(line: str) -> str:
    """Break a line that is wider than the terminal, between words; what follows is indented further.

    A word is never broken: a path that is longer can still be copied. In a pipe, whose reader looks for
    lines, the line stays whole.
    """
    known = sys.stdout.isatty() or "COLUMNS" in os.environ
    if not known or len(line.expandtabs()) <= width():
        return line
    indent = line[: len(line) - len(line.lstrip())]
    return textwrap.fill(
        line,
        width(),
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def printable(text: str, encoding: str | None = None) -> str:
    """Return a text as standard output can hold it: in ASCII, ``±`` is ``+-``, and é is ``\\xe9``.

    Args:
        text: Anything.
        encoding: What the output is encoded in; None asks standard output.
    """
    encoding = encoding or sys.stdout.encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        plain = text.replace(" ± ", " +-").translate(_PLAIN)  # as long, so that columns stay
        return plain.encode(encoding, "backslashreplace").decode(encoding)
    return text
