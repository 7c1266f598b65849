"""run.log: what happened, for people to read."""

from __future__ import annotations

import logging
from contextlib import suppress


class RunLog(logging.FileHandler):
    """Writes run.log, as long as it can be written.

    A full disk ends a run by the first of its tables that cannot be written, in a line that names the
    file. Python's own handler would print a traceback for every line besides, or end what it logs for.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        try:
            super().emit(record)
        except OSError:  # the file cannot even be opened
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Take no notice."""

    def close(self) -> None:
        """Close the file."""
        with suppress(OSError):
            super().close()
