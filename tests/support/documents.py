"""What the documents say: their links, their commands, their files."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_STARTS = ("fedexp ", "python ", "$ fedexp", "$ python")


class Command(NamedTuple):
    """A command in a document, in words; `refused` if the document shows that it is refused."""

    document: str
    words: list[str]
    refused: bool

    def __str__(self) -> str:
        return f"{self.document}: {shlex.join(self.words)}"


def documents() -> list[Path]:
    """Return every document for people, README.md first."""
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("results/*.md")]
    return [*found, *sorted(ROOT.glob("docs/**/*.md"))]


def files_in(document: Path, language: str = "python") -> list[str]:
    """Return the fenced blocks of a language as they are printed."""
    return [text for name, text in _FENCE.findall(document.read_text()) if name == language]


def links_in(document: Path) -> list[str]:
    """Return where a document's links point, those to other hosts left out."""
    found = _LINK.findall(_without_code(document.read_text()))
    return [link for link in found if "://" not in link]


def anchors_in(document: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.*)$", _FENCE.sub("", document.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def commands_in(document: Path) -> Iterator[Command]:
    """Yield the commands on lines of their own, indented or fenced, that run fedexp or a script."""
    lines = document.read_text().replace("\\\n", " ").splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        text = line.strip()
        if not line.startswith(("    ", "\t")) and not line.startswith("$ "):
            continue
        if text != "fedexp" and not text.startswith(_STARTS):
            continue
        words = shlex.split(text.removeprefix("$ "), comments=True)
        refused = following.strip().startswith("fedexp: ")
        yield Command(str(document.relative_to(ROOT)), words, refused)


def _without_code(text: str) -> str:
    text = _FENCE.sub("", text)
    text = re.sub(r"^    .*$", "", text, flags=re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "", text)
