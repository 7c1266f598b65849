"""Rows of cells as text, Markdown or LaTeX, within so many characters a line."""

from __future__ import annotations

import re
from collections.abc import Sequence

Row = dict[str, str]
"""Heading of a column -> cell."""

FORMATS = ("table", "markdown", "latex")

_GAP = 2
_NUMBER = re.compile(r"[+\-]?\d[\d.]*( ± \d[\d.]*)?")
_MINUS = re.compile(r"(?<![\w.])-(?=\d)")
BOLD = "**"
"""Stands before and behind the best cells."""

_SPECIAL = {
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{char: f"\\{char}" for char in "&%$#_{}"},
    **{"<": "$<$", ">": "$>$", "…": r"\ldots{}", "±": r"$\pm$", "−": "$-$", "†": r"$\dagger$"},
}


def written(rows: Sequence[Row], form: str, width: int, keys: int = 1) -> str:
    """Write rows as a table.

    Args:
        rows: All with the same headings.
        form: ``table``, ``markdown`` or ``latex``.
        width: Characters of a line of a ``table``, which is broken into several that each begin with
            the key columns; those are shortened where they leave too little room.
        keys: The first so many columns say which row it is.
    """
    if form == "latex":
        return _latex(rows, keys)
    if form == "markdown":
        return _markdown(rows, keys)
    rows = _shortened(rows, keys, width // 2)
    return "\n\n".join(_text(block, keys) for block in _blocks(rows, keys, width))


def latex_text(text: str) -> str:
    """Escape what LaTeX takes for a command."""
    return "".join(_SPECIAL.get(char, char) for char in text)


def _latex(rows: Sequence[Row], keys: int) -> str:
    headings = list(rows[0])
    columns = "l" * keys + "r" * (len(headings) - keys)
    lines = [
        " & ".join(map(latex_text, headings)) + r" \\",
        r"\midrule",
        *(" & ".join(_latex_cell(row[heading]) for heading in headings) + r" \\" for row in rows),
    ]
    return "\n".join(
        [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", *lines, r"\bottomrule", r"\end{tabular}"]
    )


def _latex_cell(cell: str) -> str:
    """Write a number in math mode, where a minus is a minus."""
    bold = cell.startswith(BOLD)
    told = cell.replace(BOLD, "").strip()
    number = told.removesuffix("†")
    if _NUMBER.fullmatch(number):
        raised = r"^{\dagger}" if number != told else ""
        number = number.replace("±", r"\pm")
        return rf"$\mathbf{{{number}}}{raised}$" if bold else f"${number}{raised}$"
    text = latex_text(_MINUS.sub("−", told))
    if bold:
        return rf"\textbf{{{text}}}"
    return rf"\quad {text}" if cell.startswith(" ") else text


def _text(rows: Sequence[Row], keys: int) -> str:
    headings = list(rows[0])
    wide = [_wide(rows, heading) for heading in headings]
    lines = [
        headings,
        ["-" * width for width in wide],
        *([row[h] for h in headings] for row in rows),
    ]
    return "\n".join((" " * _GAP).join(_aligned(line, wide, keys)).rstrip() for line in lines)


def _markdown(rows: Sequence[Row], keys: int) -> str:
    headings = list(rows[0])
    wide = [max(3, _wide(rows, heading)) for heading in headings]
    rule = ["-" * w if n < keys else "-" * (w - 1) + ":" for n, w in enumerate(wide)]
    lines = [headings, rule, *([row[h].replace("|", "\\|") for h in headings] for row in rows)]
    return "\n".join(f"| {' | '.join(_aligned(line, wide, keys))} |" for line in lines)


def _aligned(line: Sequence[str], wide: Sequence[int], keys: int) -> list[str]:
    """Fill cells up: digits end in one column, names start in one."""
    return [
        cell.ljust(w) if number < keys else cell.rjust(w)
        for number, (cell, w) in enumerate(zip(line, wide, strict=True))
    ]


def _wide(rows: Sequence[Row], heading: str) -> int:
    return max(len(heading), *(len(row[heading]) for row in rows))


def _shortened(rows: Sequence[Row], keys: int, room: int) -> Sequence[Row]:
    """Shorten cells of the key columns in the middle, the longest column first, to the room there is."""
    names = list(rows[0])[:keys]
    wide = {name: _wide(rows, name) for name in names}
    while sum(wide.values()) + _GAP * keys > room and max(wide.values()) > 12:
        longest = max(wide, key=wide.__getitem__)
        wide[longest] -= 1
    cut = {name: most for name, most in wide.items() if most < _wide(rows, name)}
    if not cut:
        return rows
    return [
        {
            (shorten(name, cut[name]) if name in cut else name): (
                shorten(cell, cut[name]) if name in cut else cell
            )
            for name, cell in row.items()
        }
        for row in rows
    ]


def shorten(text: str, most: int) -> str:
    """Shorten a text in the middle to so many characters."""
    if len(text) <= most:
        return text
    left = (most - 2) // 2
    return f"{text[:left]}..{text[len(text) - (most - 2 - left) :]}"


def _blocks(rows: Sequence[Row], keys: int, width: int) -> list[list[Row]]:
    """Break columns into blocks that fit a line, each after the key columns; at least one in a block."""
    headings = list(rows[0])
    first = headings[:keys]
    taken = sum(_wide(rows, name) + _GAP for name in first)
    blocks: list[list[str]] = [[]]
    room = width - taken
    for name in headings[keys:]:
        need = _wide(rows, name)
        if blocks[-1] and need > room:
            blocks.append([])
            room = width - taken
        blocks[-1].append(name)
        room -= need + _GAP
    return [_rows_of(rows, [*first, *block], keys) for block in blocks]


def _rows_of(rows: Sequence[Row], headings: Sequence[str], keys: int) -> list[Row]:
    """Return some columns; rows that belong to another and say nothing there are left out."""
    chosen = [{name: row[name] for name in headings} for row in rows]
    return [
        row
        for row in chosen
        if not row[headings[0]].startswith(" ") or any(row[name] for name in headings[keys:])
    ]
