"""How figures over finished runs look, for colour-blind eyes and for grey print too.

Importing seaborn costs a second, so that nothing which runs experiments imports this.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import matplotlib as mpl
import seaborn
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedexp.analysis.comparison import Comparison, compare
from fedexp.analysis.factors import STRATEGY, absent, shown, title
from fedexp.analysis.results import CENTRALIZED, ISOLATED, Results

MAX_SETTINGS = 6
"""Settings that have a panel each."""

MAX_ROWS = 16
"""Rows of a comparison in one figure."""

NARROW_NAME = 20
"""Characters of a name up to which two stand beside each other on a phone."""

NAME_WIDTH = 28
"""Characters after which the name of a row goes on in a new line, between its settings."""

NARROW = 4.0
"""Width in inches of a figure for a phone: 390 pixels less margins."""

DPI = 120
FONT, SMALL = 10.0, 8.0
MARKERS = "osD^vP*XhHd<>p8s"
DASHES: Sequence[Any] = ("-", (0, (6, 1.5)), (0, (3, 1, 1, 1)), (0, (1.5, 1)))
# Without the grey and the yellow, which is faint on white.
COLOURS = [seaborn.color_palette("colorblind")[k] for k in (0, 1, 2, 4, 3, 9, 5, 6)]
WARNING = seaborn.color_palette("colorblind")[3]
HATCHES = ("", "///", "...")


class NothingToDraw(ValueError):
    """The runs do not have what a figure is about."""


class Drawing(Figure):
    """A figure that notebooks show, though pyplot knows nothing of it."""

    def _repr_png_(self) -> bytes:
        return png(self)


class View:
    """The runs that a comparison counts, under the names and in the order of its rows.

    Attributes:
        comparison: The comparison.
        found: Only its runs.
        settings: Rows by the settings that they share, a panel each; all under "" where there is one
            setting, or too many.
        rows: Names of the rows to show, MAX_ROWS at most: the best ones, references among them.
        goal: What runs are judged by.
        federated: Names of all rows that are neither isolated nor centralized.
        notes: What the reader of a figure must know: rows left out.
    """

    def __init__(self, found: Results, comparison: Comparison | None = None) -> None:
        self.comparison = comparison or compare(found)
        self.goal = self.comparison.goal
        labels = self.comparison.labels
        self.found = found.select(labels.index)
        kinds = self.found.runs["kind"]
        self._references = {
            name: kind
            for name in labels.unique()
            for kind in (ISOLATED, CENTRALIZED)
            if (kinds[labels == name] == kind).all()
        }
        names = list(labels.unique())
        self.federated = [name for name in names if name not in self._references]
        room = max(MAX_ROWS // 2, MAX_ROWS - len(self.federated))
        references = self.best(self._references, room)
        shown = {*references, *self.best(self.federated, MAX_ROWS - len(references))}
        self.rows: list[str] = [name for name in names if name in shown]
        self._names, self.settings = self._by_setting()
        self.notes: list[str] = []
        if len(names) > len(shown):
            some = f"{len(shown)} of {len(names)} rows are shown"
            best = "most accurate" if self.goal.has_labels else "best"
            self.notes.append(f"{some}: the {best}, references among them")

    def _by_setting(self) -> tuple[dict[str, str], dict[str, list[str]]]:
        """Return what rows are called within their settings, and the rows of every setting."""
        keys = self.comparison.factors
        own = self.comparison.methods
        table = self.comparison.table.set_index("row").loc[self.rows]
        others = {
            row: _told(table, row, [key for key in keys if key not in own]) for row in self.rows
        }
        settings: dict[str, list[str]] = {}
        for row, setting in others.items():
            settings.setdefault(setting, []).append(row)
        if STRATEGY not in keys or not 1 < len(settings) <= MAX_SETTINGS:
            return {row: row for row in self.rows}, {"": self.rows}
        return {row: _told(table, row, own) for row in self.rows}, settings

    def name(self, row: str) -> str:
        """Return what a row is called where settings have panels: the strategy, in all of them."""
        return self._names[row]

    def best(self, names: Iterable[str], most: int) -> list[str]:
        """Return those rows, `most` of them at most, that are the best ones; in their order."""
        names = list(names)
        merit = self.merit()
        chosen = sorted(names, key=lambda name: -merit[name])[:most]
        return [name for name in names if name in chosen]

    def kind(self, row: str) -> str | None:
        """Return ``isolated`` or ``centralized`` for rows of nothing else, None for the others."""
        return self._references.get(row)

    def merit(self) -> dict[str, float]:
        """Return what every row is judged by in the end, larger is better; -inf where there is none."""
        table = self.comparison.table
        turned = (self.goal.sign * table[self.goal.metric]).fillna(-math.inf)
        return dict(zip(table["row"], turned, strict=True))

    def runs(self, row: str) -> list[int]:
        """Return the runs of a row."""
        labels = self.comparison.labels
        runs: list[int] = labels.index[labels == row].tolist()
        return runs

    def style(self, row: str, *, by_name: bool = False) -> dict[str, Any]:
        """Return how a row's line is drawn: references black or grey, the others in colours.

        Args:
            row: The row.
            by_name: A strategy looks the same in all settings, which have a panel each.
        """
        same = [name for name in self.rows if self.kind(name) == self.kind(row)]
        if by_name:
            number = list(dict.fromkeys(map(self.name, same))).index(self.name(row))
        else:
            number = same.index(row)
        if self.kind(row) is not None:
            isolated = self.kind(row) == ISOLATED
            return {
                "color": "black" if isolated else "dimgrey",
                "linestyle": (0, (4, 2)) if isolated else (0, (1, 1)),
                "marker": ("xos^Dv<>" if isolated else "+PXh8p*d")[number % 8],
                "markerfacecolor": "white",
            }
        turn, colour = divmod(number, len(COLOURS))
        return {
            "color": COLOURS[colour],
            "linestyle": DASHES[(turn + colour) % len(DASHES)],
            "marker": MARKERS[number % len(MARKERS)],
        }

    def most_runs(self) -> int:
        """Return the number of runs of the row that has most."""
        return int(self.comparison.table["runs"].max())


def _told(table: Any, row: str, keys: Sequence[str]) -> str:
    """Return a row's values of some factors, as its name has them."""
    values = {key: table.at[row, key] for key in keys}
    return " ".join(
        shown(value) if key == STRATEGY else f"{title(key)}={shown(value)}"
        for key, value in values.items()
        if not absent(value)
    )


_for_phones: ContextVar[bool] = ContextVar("for_phones", default=False)


@contextmanager
def narrow() -> Iterator[None]:
    """Draw figures for phones: :data:`NARROW` inches wide, panels below each other, names on top."""
    token = _for_phones.set(True)
    try:
        yield
    finally:
        _for_phones.reset(token)


def is_narrow() -> bool:
    """Say whether figures are drawn for phones."""
    return _for_phones.get()


def new(width: float, height: float, layout: Any = "constrained") -> Any:
    """Return an empty figure of a size in inches; axes of fixed proportions need ``compressed``."""
    figure = Drawing(figsize=(NARROW if is_narrow() else width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def wrapped(name: str) -> str:
    """Break a long name into lines."""
    options: dict[str, Any] = {"break_on_hyphens": False, "break_long_words": False}
    return "\n".join(textwrap.wrap(name, NAME_WIDTH, **options)) or name


def label_names(partition: dict[str, Any], number: int) -> list[str]:
    """Return what labels are called; their numbers, where a partition.json does not say."""
    return list(partition.get("classes") or map(str, range(number)))


def tidy(axes: Any, **labels: str) -> None:
    """Label axes, and take the frame's upper and right side away."""
    axes.set(**labels)
    axes.grid(alpha=0.3, linewidth=0.6)
    axes.set_axisbelow(True)
    seaborn.despine(ax=axes)


def whole_rounds(axes: Any) -> None:
    """Put ticks of the x axis on whole rounds."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def named(axes: Iterable[Any]) -> dict[str, Any]:
    """Return what legends call the marks of several axes, each once: not every one has every kind."""
    found: dict[str, Any] = {}
    for panel in axes:
        for handle, name in zip(*panel.get_legend_handles_labels(), strict=True):
            found.setdefault(name, handle)
    return found


def legend(figure: Any, *axes: Any) -> None:
    """Name the lines of some of the figure's axes to the right of all of them, or above on a phone."""
    names = named(axes)
    if is_narrow():
        legend_above(figure, axes)
        return
    figure.legend(
        names.values(),
        [wrapped(name) for name in names],
        loc="outside right upper",
        frameon=False,
        fontsize=FONT if len(names) <= 10 else SMALL,
        handlelength=3.5,
    )


def legend_above(figure: Any, axes: Iterable[Any], columns: int = 3) -> None:
    """Name the marks of axes above all of them."""
    names = named(axes)
    told = [wrapped(name) for name in names] if is_narrow() else list(names)
    if is_narrow():
        columns = 2 if max(map(len, names), default=0) <= NARROW_NAME else 1
        lines = sum(name.count("\n") + 1 for name in told) / columns
        figure.set_figheight(figure.get_figheight() + 0.18 * lines)
    style = {"fontsize": SMALL, "handlelength": 3.5} if is_narrow() else {}
    figure.legend(
        names.values(),
        told,
        **{"loc": "outside upper center", "ncols": columns, "frameon": False, **style},
    )


def outer(axes: Sequence[Any], columns: int) -> Sequence[Any]:
    """Return those of a grid's axes that have the others of their row to the right."""
    return axes if is_narrow() else axes[::columns]


def explain(figure: Any, *notes: str) -> None:
    """Write notes below a figure, after those that stand there: what is drawn, and what is left out."""
    width = int(figure.get_figwidth() * (15 if is_narrow() else 17))
    before = " ".join(figure.get_supxlabel().split()).removesuffix(".")
    notes = (before, *notes)
    text = textwrap.fill(" ".join(f"{note.removesuffix('.')}." for note in notes if note), width)
    if is_narrow():
        figure.set_figheight(figure.get_figheight() + 0.14 * (text.count("\n") + 1))
    figure.supxlabel(text, x=0.01, ha="left", fontsize=SMALL, color="#333333")


def panels(figure: Any, count: int, columns: int, **options: Any) -> list[Any]:
    """Return so many axes in a grid, whose other places stay empty."""
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    if is_narrow():
        figure.set_figheight(figure.get_figheight() / rows * count)
        rows, columns = count, 1
    axes: list[Any] = figure.subplots(rows, columns, squeeze=False, **options).ravel().tolist()
    for unused in axes[count:]:
        unused.remove()
    return axes[:count]


def png(figure: Any) -> bytes:
    """Return a figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()


def svg(figure: Any) -> bytes:
    """Return a figure as SVG: words as text, and the same bytes for the same figure."""
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "fedexp"}):
        figure.savefig(buffer, format="svg", dpi=DPI, metadata={"Date": None})
    return buffer.getvalue()


def save(figure: Any, stem: str | Path) -> list[Path]:
    """Write a figure as ``<stem>.png`` and ``<stem>.svg``, and return both paths.

    The folder is made if it is not there.
    """
    stem = Path(stem)
    stem.parent.mkdir(parents=True, exist_ok=True)
    written = []
    for ending, content in (("png", png(figure)), ("svg", svg(figure))):
        path = stem.with_name(f"{stem.name}.{ending}")
        path.write_bytes(content)
        written.append(path)
    return written
