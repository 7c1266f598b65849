"""Text for a terminal, within its width."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from fedexp.core.describing import Option, plain
from fedexp.core.terminal import width

MAX_WIDTH = 100
"""Characters after which prose is hard to read, however wide the terminal."""


def listed(found: Sequence[Option]) -> str:
    """Write options, each with its value and range in a line and its meaning below."""
    lines = []
    for option in found:
        name = f"{option.name}={option.default}"
        apart = max(1, 38 - len(name))
        lines.append(filled(f"{name}{' ' * apart}{option.values}", "  ", "    "))
        if option.meaning:
            lines.append(filled(plain(option.meaning), "      ", "      "))
    return "\n".join(lines)


def columns(about: Mapping[str, str]) -> str:
    """Write words with what each is beside it."""
    wide = min(22, max(map(len, about))) + 2
    return "\n".join(
        filled(f"{word:{wide}}{text}", "  ", " " * (wide + 2)) for word, text in about.items()
    )


def filled(text: str, first: str = "  ", others: str = "    ") -> str:
    """Break a text into lines; ``first`` and ``others`` stand before them."""
    return textwrap.fill(
        text,
        min(width(), MAX_WIDTH),
        initial_indent=first,
        subsequent_indent=others,
        break_on_hyphens=False,
        drop_whitespace=True,
    )


def command(line: str) -> str:
    """Indent a command; one that is too long goes on in lines that a shell takes for one."""
    parts = textwrap.wrap(line, width() - 6, break_long_words=False, break_on_hyphens=False)
    return textwrap.indent(" \\\n    ".join(parts), "  ")
