"""Files that appear whole or not at all, and text without secrets."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fedexp.core.options import FedexpError

_NAMES = (
    r"(?:api|access|private|secret|account)[_-]?key|token(?!iz)|secret|passw(?:or)?d|passphrase|"
    "credential"  # dataset.tokenizer is none
)
_SECRET = rf"(?<![\w-])[\w-]*(?:{_NAMES})[\w-]*[\"']?[ \t]*[=:][ \t]*"
_VALUE = r"""(?:"(?:\\.|[^"\\])*"|'(?:''|[^'])*'|\[[^\]]*\]|[^\s,}\]]+)"""
_ENV_SET = rf"(env_set(?:\.\w+)?=)(?:\{{[^}}]*\}}|{_VALUE})"
_ENV_SET_BLOCK = r"(?m)^( *)env_set:\n((?:\1 +.*\n)+)"
_KEYS_VARIABLE = re.compile(rf"(?i)(?:{_NAMES})(?:_|$)|(?:^|_)key$")
HIDDEN = "<hidden>"

SWEEP_FILE = "sweep.json"
"""What a sweep consists of, so that it can be resumed."""

SHORTEST_KEY = 12
"""Characters of a variable's value from which on it is looked for: a short one may be any word."""


def without_secrets(text: str) -> str:
    """Hide keys, tokens, secrets and passwords.

    What follows the name of one and ``=`` or ``:``, what stands before ``@`` in an address, whatever
    Hydra is to set in the environment (``hydra.job.env_set``), and the value of every environment
    variable that is called like one, wherever it occurs.
    """
    for value in _keys_in_environment():
        text = text.replace(value, HIDDEN)
    text = re.sub(r"(://)[^\s/]+@", rf"\g<1>{HIDDEN}@", text)
    text = re.sub(_ENV_SET_BLOCK, _hide_block, text)
    text = re.sub(_ENV_SET, rf"\g<1>{HIDDEN}", text)
    return re.sub(rf"(?i)({_SECRET}){_VALUE}", rf"\g<1>{HIDDEN}", text)


def _keys_in_environment() -> list[str]:
    found = {
        value
        for name, value in os.environ.items()
        if len(value) >= SHORTEST_KEY and value[0] != "/" and _KEYS_VARIABLE.search(name)
    }
    return sorted(found, key=len, reverse=True)  # one may be part of another


def _hide_block(block: re.Match[str]) -> str:
    names = re.sub(r"(?m)^( *[^\s:]+:).*$", rf"\g<1> {HIDDEN}", block[2])
    return f"{block[1]}env_set:\n{names}"


class DiscreetFormatter(logging.Formatter):
    """Format what is logged, tracebacks included, without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of a record."""
        return without_secrets(super().format(record))


def holds_run(folder: Path) -> bool:
    """Say whether a folder is a run's."""
    return any(os.path.lexists(folder / name) for name in ("summary.json", "metrics.csv"))


def write_whole(path: Path, content: bytes) -> None:
    """Write a file in one step: a reader sees the old one or the new one, after a power cut, too.

    Raises:
        OSError: If it cannot be written; the old one is as it was.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        if error.errno is not None:  # else the file would take the place of what it says
            error.filename = str(path)  # not every error says which file it was
        raise
    if os.name == "posix":  # elsewhere a folder cannot be opened
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def cache_folder() -> Path | None:
    """Return where what can be made again is kept for the next run; None where there is no place."""
    told = os.environ.get("XDG_CACHE_HOME")
    try:
        folder = Path(told) if told else Path.home() / ".cache"
    except RuntimeError:  # no HOME, and the system does not know the user
        return None
    return folder / "fedexp"


def try_folder(folder: Path) -> None:
    """Make sure that a folder can be made and written; nothing of that stays.

    Raises:
        FedexpError: With path and reason, if it cannot.
    """
    new: list[Path] = []
    try:
        with unwritable(folder):
            new = [path for path in (folder, *folder.parents) if not path.exists()]
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=folder, prefix=".") as file:
                file.write(bytes(4096))
                file.flush()
    finally:
        for path in new:  # the innermost first
            with suppress(OSError):  # it was not made, or somebody else uses it by now
                path.rmdir()


@contextmanager
def unwritable(folder: Path) -> Iterator[None]:
    """Run a block that writes below a folder, and say in a line what stopped it.

    Raises:
        FedexpError: With path and reason, in place of an ``OSError``.
    """
    try:
        yield
    except OSError as error:
        where = error.filename2 or error.filename or folder
        raise FedexpError(f"{where} cannot be written: {error.strerror or error}") from error


def reason(error: Exception) -> str:
    """Return why something failed, without secrets; our own errors say it themselves."""
    told = str(error).strip() or type(error).__name__
    kind = "" if isinstance(error, FedexpError) else f"{type(error).__name__}: "
    return without_secrets(f"{kind}{told}")


def json_bytes(content: Mapping[str, Any]) -> bytes:
    """Render what a JSON file holds; a number that is not finite is null, as JSON knows none."""
    return (json.dumps(_finite(content), indent=2, allow_nan=False) + "\n").encode()


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
