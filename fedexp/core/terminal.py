"""What a terminal, or a file in its place, can show."""

from __future__ import annotations

import shutil
import sys

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
