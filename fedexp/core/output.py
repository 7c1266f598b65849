"""Text for a reader who may be gone, as in ``fedexp ... | head``; that ends a command without a word."""

from __future__ import annotations

import logging
import os
import sys
from typing import NoReturn

from fedexp.core.files import without_secrets
from fedexp.core.terminal import fitted, printable

EXIT_UNREAD = 1


def say(text: str, end: str = "\n") -> None:
    """Print.

    Raises:
        SystemExit: If nobody reads it.
    """
    try:
        print(text, end=end, flush=True)
    except BrokenPipeError:
        reader_gone()


def complain(program: str, error: object) -> None:
    """Print what is wrong on standard error: its lines, each after the program's name."""
    for line in without_secrets(str(error)).splitlines():
        told = fitted(f"{program}: {line}", sys.stderr)
        print(printable(told, sys.stderr.encoding), file=sys.stderr)


def reader_gone() -> NoReturn:
    """End the program because nobody reads it; rich does the same.

    Raises:
        SystemExit: Always.
    """
    # Else Python complains when it flushes what is left.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(EXIT_UNREAD)


class FittedFormatter(logging.Formatter):
    """Write a message in lines that the terminal need not wrap."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the message."""
        return "\n".join(map(fitted, printable(super().format(record)).splitlines()))


class ConsoleHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Log to the terminal."""

    def handleError(self, record: logging.LogRecord) -> None:
        """End the program if nobody reads it; Python would print a traceback for every line."""
        if isinstance(sys.exc_info()[1], BrokenPipeError):
            reader_gone()
        super().handleError(record)
