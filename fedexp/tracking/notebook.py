"""What a notebook shows of the jobs of a call: one bar, in place of a line for every round."""

from __future__ import annotations

import sys
import time
from html import escape
from importlib import import_module
from typing import Any

from fedexp.core.pace import Pace
from fedexp.federation.events import COMPLETED, Ending, RoundReport, RunInfo
from fedexp.tracking.terminal import Terminal

REDRAWN_EVERY = 0.2  # seconds; every change is a message to the browser

_BAR = (
    '<div style="font-family: monospace"><progress max="1" value="{share:.4f}" '
    'style="width: 20em; vertical-align: middle"></progress> {text}</div>'
)


def bar(jobs: int) -> Bar | None:
    """Return the bar of a call, where a notebook's kernel runs this; None anywhere else.

    Args:
        jobs: How many jobs the call runs.
    """
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return Bar(jobs) if getattr(shell, "kernel", None) is not None else None


class Bar(Terminal):
    """Show how far all jobs are, and the newest round's metric; each job's lines go to its run.log.

    Args:
        jobs: How many will run.
    """

    def __init__(self, jobs: int) -> None:
        shown: Any = import_module("IPython.display")
        self._html = shown.HTML
        self._jobs, self._begun, self._lost, self._drawn = jobs, 0, 0, 0.0
        self._pace, self._left = Pace(), ""
        self._job, self._text, self._metric = "", "", ""
        self._handle = shown.display(shown.HTML(_BAR.format(share=0, text="")), display_id=True)

    def begin(self, run: RunInfo) -> None:
        """Name the job."""
        self._left = self._pace.left(self._jobs - self._begun)
        self._begun += 1
        self._job, self._metric = run.name, ""
        super().begin(run)
        self._show(0, "starting")

    def progress(self, server_round: int, phase: str, done: int, total: int) -> None:
        """Move the bar, if the last move was a moment ago."""
        if time.monotonic() - self._drawn > REDRAWN_EVERY:
            super().progress(server_round, phase, done, total)

    def round(self, report: RoundReport) -> None:
        """Keep the newest metric beside the bar."""
        if report.headline:
            metric, value = next(iter(report.headline.items()))
            self._metric = f"  {metric} {value:.3f}"
        super().round(report)

    def end(self, ending: Ending) -> None:
        """Fill the job's part of the bar."""
        super().end(ending)
        self._left = ""
        self._lost += ending.status != COMPLETED
        self._show(self._num_rounds, ending.status)

    def _start(self) -> None:
        """Do without the terminal's bar."""

    def _stop(self) -> None:
        """There is nothing to stop."""

    def _print(self, line: str) -> None:
        """Leave lines to run.log."""

    def _show(self, rounds: float, text: str | None = None) -> None:
        self._text = self._text if text is None else text
        share = (self._begun - 1 + rounds / max(1, self._num_rounds)) / self._jobs
        number = f"job {self._begun}/{self._jobs}{self._left}: " if self._jobs > 1 else ""
        lost = f"  ({self._lost} did not complete)" if self._lost and self._jobs > 1 else ""
        told = escape(f"{number}{self._job}  {self._text}{self._metric}{lost}")
        self._handle.update(self._html(_BAR.format(share=share, text=told)))
        self._drawn = time.monotonic()
