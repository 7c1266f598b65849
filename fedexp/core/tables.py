"""CSV files that grow, and notice when somebody else touches them."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from fedexp.core.options import FedexpError


class Position(NamedTuple):
    """How far a table has grown.

    Attributes:
        rows: Its rows, without the head.
        bytes: Its length.
        sha256: Of all its bytes.
    """

    rows: int
    bytes: int
    sha256: str


def as_dict(position: Position) -> dict[str, Any]:
    """Return a position as JSON has it."""
    return dict(zip(Position._fields, position, strict=True))


class Table:
    """Writes a CSV file, from its head or from where an earlier process came to.

    Args:
        path: The file.
        columns: Its head.
        position: How far it had grown when what follows is to be written; what comes after is cut off.

    Raises:
        FedexpError: If the file is not what the position says.
        OSError: If it cannot be opened.
    """

    def __init__(
        self, path: Path, columns: Iterable[str], position: Position | None = None
    ) -> None:
        self._path = path
        self._digest = hashlib.sha256()
        self._rows = self._bytes = 0
        if position is None:
            self._file: BinaryIO = path.open("wb")
            self._write(_rendered([columns]))
        else:
            self._take_up(position)

    def kept_position(self) -> Position:
        """Return how far it has grown, once all of that is on the disk."""
        os.fsync(self._file.fileno())
        return self.position()

    def position(self) -> Position:
        """Return how far it has grown."""
        return Position(self._rows, self._bytes, self._digest.hexdigest())

    def append(self, rows: Iterable[Iterable[Any]]) -> None:
        """Write rows and flush them; None becomes an empty field.

        Raises:
            FedexpError: If the file was removed or changed since the last time.
        """
        rows = list(rows)
        if rows:
            self._check()
            self._write(_rendered(rows))
            self._rows += len(rows)

    def close(self, *, checked: bool = True) -> None:
        """Close the file, once all of it is on the disk.

        Args:
            checked: Whether to raise if it was removed or changed since the last time.

        Raises:
            FedexpError: If it was.
        """
        if self._file.closed:
            return
        if checked:
            self._check()
        os.fsync(self._file.fileno())
        self._file.close()

    def _write(self, content: bytes) -> None:
        try:
            self._file.write(content)
            self._file.flush()
        except OSError as error:
            error.filename = str(self._path)
            raise
        self._digest.update(content)
        self._bytes += len(content)

    def _take_up(self, position: Position) -> None:
        self._digest.update(content_at(self._path, position))
        self._file = self._path.open("r+b")
        self._file.truncate(position.bytes)
        self._file.seek(position.bytes)
        self._rows, self._bytes = position.rows, position.bytes

    def _check(self) -> None:
        here = os.fstat(self._file.fileno())
        try:
            there = self._path.stat()
        except FileNotFoundError as error:
            raise FedexpError(f"{self._path} was removed while the run went on") from error
        if (here.st_ino, here.st_dev, here.st_size) != (there.st_ino, there.st_dev, self._bytes):
            raise FedexpError(f"{self._path} was changed by somebody else while the run went on")


def content_at(path: Path, position: Position) -> bytes:
    """Return what a file held at a position; what was written since is left out.

    Raises:
        FedexpError: If it does not begin with that any more.
    """
    try:
        content = path.read_bytes()[: position.bytes]
    except OSError:
        content = b""
    if (len(content), hashlib.sha256(content).hexdigest()) != (position.bytes, position.sha256):
        raise FedexpError(
            f"{path} was removed or changed since the run wrote it: restore it, or run the experiment "
            "again in another folder"
        )
    return content


def _rendered(rows: Iterable[Iterable[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
