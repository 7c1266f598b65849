"""One HTML file that says what finished runs found: it needs no network and no other file.

found = results.load("results/lesson")
Path("report.html").write_text(report.render(found, compare(found), "results/lesson"))

The same runs give the same bytes; the only times in it are those of the runs.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from fedexp.analysis import figures, legend, provenance, tables
from fedexp.analysis.captions import caption
from fedexp.analysis.comparison import Comparison
from fedexp.analysis.findings import Fact, headline
from fedexp.analysis.measures import tested_apart
from fedexp.analysis.results import Results
from fedexp.analysis.rows import Rows, counted
from fedexp.analysis.verdicts import paired_tests

MAX_RUNS, MAX_COMMANDS, MAX_LINES = 200, 100, 50
"""Runs in the table of options, commands, and lines of problems or notes; a report stays small."""

HERO = "confusion_matrices"
"""The figure beside the headline."""

_INCHES = 96  # CSS pixels in one


class Image(NamedTuple):
    """A figure as a browser takes it.

    Attributes:
        source: A ``data:`` address.
        width: In CSS pixels.
        height: In CSS pixels.
    """

    source: str
    width: int
    height: int


class Shown(NamedTuple):
    """A figure in the report.

    Attributes:
        name: What its function is called.
        title: What it is about.
        finding: What it shows, in words.
        image: The picture.
        narrow: The picture for narrow screens.
    """

    name: str
    title: str
    finding: str
    image: Image
    narrow: Image


class Excerpt(NamedTuple):
    """The first of many.

    Attributes:
        shown: Those that the report holds.
        total: How many there are.
    """

    shown: Sequence[Any]
    total: int

    @property
    def left_out(self) -> int:
        """How many the report does not hold."""
        return self.total - len(self.shown)


def render(found: Results, comparison: Comparison | None, title: str) -> str:
    """Return the report as HTML.

    Args:
        found: What :func:`fedexp.analysis.results.load` returned.
        comparison: Of these runs; None where none completed.
        title: What the report is called: the folder of the runs.
    """
    shown = list(_figures(found, comparison)) if comparison else []
    problems = found.problems()
    notes = [note for note in comparison.notes if note not in problems] if comparison else []
    said = headline(found, comparison)
    environment = Environment(
        loader=PackageLoader("fedexp.analysis"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(
        title=title,
        subtitle=_subtitle(found),
        said=said,
        meanings=_meanings(said.facts, found, comparison) if comparison else [],
        hero=next((figure for figure in shown if figure.name == HERO), None),
        figures=[figure for figure in shown if figure.name != HERO],
        tables=tables.tables(comparison) if comparison else [],
        legend=tables.general_notes(comparison) if comparison else [],
        tests=paired_tests(comparison) if comparison else [],
        problems=_excerpt(problems, MAX_LINES),
        notes=_excerpt(notes, MAX_LINES),
        options=_options(found),
        commands=_commands(found),
    )


def _meanings(
    facts: Sequence[Fact], found: Results, comparison: Comparison
) -> list[tuple[str, str]]:
    """Return what the numbers beside the headline mean, each by its label."""
    apart, goal = bool(tested_apart(found, comparison.isolated)), comparison.goal
    told = [(fact.label, legend.fact(fact.label, goal, apart=apart)) for fact in facts]
    if any("±" in fact.value for fact in facts):
        told.append(("±", "half of the 95 % interval of the mean over seeds (Student's t)"))
    return told


def _subtitle(found: Results) -> str:
    seeds = sorted(found.runs["seed"].dropna().unique())
    listed = f"seed{'s' * (len(seeds) > 1)} {', '.join(f'{int(seed)}' for seed in seeds)}"
    told = listed if 0 < len(seeds) <= 10 else counted(len(seeds), "seed")
    return f"{counted(len(found.runs), 'run')}, {told}"


def _figures(found: Results, comparison: Comparison) -> Iterator[Shown]:
    rows = Rows(found, comparison)
    with figures.narrow():
        narrow = {drawn.name: _image(drawn.figure) for drawn in figures.every(found, comparison)}
    for name, title, figure in figures.every(found, comparison):
        finding = caption(name, found, rows)
        yield Shown(name, title, finding, _image(figure), narrow[name])


def _image(figure: Any) -> Image:
    """Return a figure as PNG or SVG, whichever is smaller."""
    kinds = {"png": figures.png(figure), "svg+xml": figures.svg(figure)}
    kind = min(kinds, key=lambda name: len(kinds[name]))
    content = base64.b64encode(kinds[kind]).decode()
    width, height = figure.get_size_inches() * _INCHES
    return Image(f"data:image/{kind};base64,{content}", round(width), round(height))


def _excerpt(lines: Sequence[Any], most: int) -> Excerpt:
    return Excerpt(lines[:most], len(lines))


class _Options(NamedTuple):
    keys: list[str]
    rows: list[tuple[str, list[str]]]
    left_out: int


def _options(found: Results) -> _Options:
    """Return run x option, for the options in which runs differ."""
    keys = provenance.differences(found)
    runs = found.runs.index[:MAX_RUNS]
    values: pd.DataFrame = found.settings.loc[runs, keys].map(provenance.shown)
    names = _names(found)
    rows = [(names[run], values.loc[run].tolist()) for run in runs]
    return _Options(keys, rows, len(found.runs) - len(runs))


def _commands(found: Results) -> Excerpt:
    runs = found.runs.index[:MAX_COMMANDS]
    names = _names(found)
    shown = [(names[run], provenance.command(found, run)) for run in runs]
    return Excerpt(shown, len(found.runs))


def _names(found: Results) -> dict[int, str]:
    """Return the runs' folders, less what they all lie in."""
    folders = {run: found.path(run) for run in found.runs.index}
    root = os.path.commonpath([folder.parent for folder in folders.values()])
    return {run: os.path.relpath(folder, root) for run, folder in folders.items()}
