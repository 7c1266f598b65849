"""What a terminal, or a file in its place, can show."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from typing import Any, TextIO

MIN_WIDTH, MAX_WIDTH = 60, 160

_WHOLE: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}

_PLAIN = str.maketrans(
    {
        **{"±": "+-", "−": "-", "–": "-", "→": "->", "…": "...", "†": "*", "×": "x"},
        **{"\u00a0": " ", "“": '"', "”": '"', "’": "'"},
    }
)


def width() -> int:
    """Return the characters of a line; 80 where nothing says how many, as in a pipe."""
    return min(MAX_WIDTH, max(MIN_WIDTH, shutil.get_terminal_size((80, 24)).columns))


def fitted(line: str, stream: TextIO | None = None) -> str:
    """Break a line that is wider than the terminal, between words; what follows is indented further.

    A word is never broken: a path that is longer can still be copied. In a pipe, whose reader looks for
    lines, the line stays whole.

    Args:
        line: What is to be printed.
        stream: Where; None is standard output.
    """
    if not is_too_wide(line, stream):
        return line
    line = line.expandtabs()
    indent = line[: len(line) - len(line.lstrip())]
    return textwrap.fill(
        line,
        width(),
        subsequent_indent=f"{indent}  ",
        **_WHOLE,
    )


def is_too_wide(line: str, stream: TextIO | None = None) -> bool:
    """Say whether the terminal would wrap a line; a pipe has no width.

    ``COLUMNS`` gives standard output one. Errors stay lines wherever they do not reach a terminal.
    """
    known = stream.isatty() if stream else sys.stdout.isatty() or "COLUMNS" in os.environ
    return known and len(line.expandtabs()) > width()


def paragraphs(text: str) -> str:
    """Fill paragraphs to the width of the terminal; indented lines, such as commands, stay."""
    filled: list[str] = []
    paragraph = ""
    for line in [*text.splitlines(), ""]:
        if line and not line.startswith(" "):
            paragraph = f"{paragraph} {line}".lstrip()
            continue
        filled += textwrap.wrap(paragraph, width(), **_WHOLE)
        filled.append(line)
        paragraph = ""
    return "\n".join(filled).strip("\n")


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
