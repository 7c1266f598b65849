"""What a reproduction prints: one published number a line, beside ours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from fedexp.analysis.results import Results
from fedexp.core.options import FedexpError

COLUMNS = ("figure", "ours", "published", "tolerance")


@dataclass(frozen=True)
class Check:
    """One published figure, ours, and how far apart they may lie."""

    what: str
    published: float
    tolerance: float
    ours: float

    @property
    def passed(self) -> bool | None:
        """Whether ours is within the tolerance (both ends included)."""
        return abs(self.ours - self.published) <= self.tolerance + 1e-12

    def row(self) -> list[str | float]:
        """Return what stands in the reference table, under :data:`COLUMNS`."""
        return [self.what, round(float(self.ours), 4), self.published, self.tolerance]

    def __str__(self) -> str:
        return (
            f"{self.what:38} ours {_figure(self.ours):>7}  "
            f"published {_figure(self.published):>7} +- {self.tolerance:g}"
        )


@dataclass(frozen=True)
class Bound:
    """A published figure that says no more than on which side of a limit ours must lie.

    Attributes:
        what: What is measured.
        published: The published figure, which lies there, too.
        ours: Ours.
        limit: Ours must lie above or below it; equal is neither.
        above: Whether above.
    """

    what: str
    published: float
    ours: float
    limit: float
    above: bool

    @property
    def passed(self) -> bool | None:
        """Whether ours is on the same side as the published figure."""
        return self.ours > self.limit if self.above else self.ours < self.limit

    @property
    def _side(self) -> str:
        return f"{'>' if self.above else '<'} {self.limit:g}"

    def row(self) -> list[str | float]:
        """Return what stands in the reference table, under :data:`COLUMNS`."""
        return [self.what, round(float(self.ours), 4), self.published, self._side]

    def __str__(self) -> str:
        return (
            f"{self.what:38} ours {_figure(self.ours):>7}  "
            f"published {_figure(self.published):>7}, must be {self._side}"
        )


@dataclass(frozen=True)
class Told:
    """A number of ours that nothing is held against: a run as it was made says too little, or nobody
    published it.

    Attributes:
        what: What is measured.
        ours: Ours.
        published: The published figure; None where there is none.
    """

    what: str
    ours: float
    published: float | None = None

    @property
    def passed(self) -> bool | None:
        """None: it neither passes nor fails."""
        return None

    def row(self) -> list[str | float]:
        """Return what stands in the reference table, under :data:`COLUMNS`."""
        published = "" if self.published is None else self.published
        return [self.what, round(float(self.ours), 4), published, ""]

    def __str__(self) -> str:
        published = "       " if self.published is None else _figure(self.published)
        told = "not published" if self.published is None else f"published {published:>7}"
        return f"{self.what:38} ours {_figure(self.ours):>7}  {told}"


@dataclass(frozen=True)
class Direction:
    """A published direction: one of two is the better one, whatever the numbers.

    Attributes:
        what: Which number of which two; the larger number is the better one.
        better: Ours of the one that should be better, by seed.
        other: Ours of the other one, by the same seeds.
        by: By how much it must be better.
    """

    what: str
    better: Sequence[float]
    other: Sequence[float]
    by: float = 0.0

    @property
    def passed(self) -> bool | None:
        """Whether the one is better with every seed."""
        return self._wins == len(self.better) > 0

    @property
    def _wins(self) -> int:
        return sum(a - b > self.by for a, b in zip(self.better, self.other, strict=True))

    def row(self) -> list[str | float]:
        """Return what stands in the reference table, under :data:`COLUMNS`."""
        gain = round(_mean(self.better) - _mean(self.other), 4)
        return [f"{self.what}, gain", gain, f"> {self.by:g}", f"with {self._of_seeds()}"]

    def _of_seeds(self) -> str:
        return "one seed" if len(self.better) == 1 else f"each of {len(self.better)} seeds"

    def __str__(self) -> str:
        more = f" by {self.by:g}" if self.by else ""
        return (
            f"{self.what:50} {_mean(self.better):.3f} against {_mean(self.other):.3f}, "
            f"better{more} with {self._wins} of {len(self.better)} seeds"
        )


Line = Check | Bound | Told | Direction


class Cells(dict[tuple[str, str], float]):
    """Our numbers by strategy and column of the published table."""

    def __missing__(self, cell: tuple[str, str]) -> float:
        """Say which run there is none of.

        Raises:
            FedexpError: Always.
        """
        raise FedexpError(
            f"no run of {cell[0]}, {cell[1]}, is here: leave out the overrides that change what is run"
        )


def curve(found: Results, run: int) -> pd.Series:
    """Return a run's accuracy on the whole test set by round: the global model's, or the local models'
    mean where there is no global one."""
    curves = found.curves
    rows = curves[
        (curves["run"] == run)
        & (curves["split"] == "test")
        & (curves["subset"] == "all")
        & (curves["metric"] == "accuracy")
    ]
    return rows.set_index("round")["value"]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _figure(value: float) -> str:
    return f"{value:.3f}" if value <= 1 else f"{value:,.0f}"
