"""What a person sees of a run: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from shlex import quote

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from fedexp.core.commands import command
from fedexp.core.terminal import fitted, is_too_wide, printable
from fedexp.federation.events import (
    DROPPED_OUT,
    INTERRUPTED,
    Ending,
    Failure,
    Listener,
    RoundReport,
    RunInfo,
)

log = logging.getLogger("fedexp")


class Terminal(Listener):
    """Show the rounds of one run as they pass; the same lines go to run.log."""

    def begin(self, run: RunInfo) -> None:
        """Say what runs."""
        config = run.config
        self._folder, self._num_rounds = run.folder, config.num_rounds
        self._single = run.sweep is None
        self._label = f"{run.label}: " if run.label else ""
        self._start()
        self._last = time.monotonic()
        self._failures: list[Failure] = []
        self.say(
            f"{config.name}: strategy={config.strategy.name} dataset={config.dataset.name} "
            f"partition={config.partition.name} clients={config.clients.num} "
            f"rounds={config.num_rounds} backend={config.backend.name} seed={config.seed}",
            fit=True,
        )
        if run.resume:
            self.say(f"  goes on after round {run.resume['round']}")

    def progress(self, server_round: int, phase: str, done: int, total: int) -> None:
        """Move the bar."""
        verb = "training" if phase == "train" else "evaluating"
        self._show(
            server_round - 1 + done / total,
            f"round {server_round}/{self._num_rounds}: {verb} {done}/{total}",
        )

    def round(self, report: RoundReport) -> None:
        """Say how good the model is; a round that broke off has no number."""
        if report.round:
            self._failures += [f for f in report.failures if DROPPED_OUT not in f.reason]
        if not report.headline:
            return
        now = time.monotonic()
        seconds, self._last = now - self._last, now
        judged_by = next(iter(report.headline))
        took = f"{seconds:.1f} s" if report.round else "(untrained)"
        loss = f"loss {report.headline['loss']:.3f}"
        held_out = [f"validation {report.judged[judged_by]:.3f}"] if report.judged else []

        def line(model: str, *rest: str) -> str:
            tested = f"{model} test {judged_by} {report.headline[judged_by]:.3f}"
            return "  ".join([f"  round {report.round}/{self._num_rounds}", tested, *rest, took])

        model, brief = (
            ("local models' mean", "local mean") if report.local else ("global", "global")
        )
        self.say(
            line(model, loss, *held_out),
            fit=True,
            shorter=[line(brief, loss, *held_out), line(brief, *held_out)],
        )
        self._show(report.round)

    def end(self, ending: Ending) -> None:
        """Say how the run ended and where its folder is."""
        self._stop()
        folder = os.path.relpath(self._folder)
        if ending.weights is not None:  # its rounds are over; else what broke it off is told
            self.say(*(f"  {note}" for note in ending.notes), fit=True)
            if self._failures:
                self.say(f"  {self._failed()}", fit=True)
            self.say(f"  {folder}")
        if self._single:  # a multirun says so once, at its end
            if ending.weights is not None:
                self.say(f"  next: fedexp report {quote(folder)}")
            elif ending.status == INTERRUPTED:
                self.say(f"  interrupted; next: {command('resume', folder)}")

    def _failed(self) -> str:
        """Say that clients failed, other than the options have them fail, and why the first did."""
        first, number = self._failures[0], len({f.client for f in self._failures})
        who = "1 client" if number == 1 else f"{number} clients"
        return (
            f"{who} failed, first client {first.client} in round {first.round}: {first.reason} "
            "(failures.csv)"
        )

    def say(self, *lines: str, fit: bool = False, shorter: Sequence[str] = ()) -> None:
        """Print lines, and note them in run.log.

        Args:
            lines: What is told.
            fit: Break a line that is wider than the terminal; never one with a command, which is to be
                pasted.
            shorter: What may be printed in place of a line that is too wide; run.log has the whole one.
        """
        for line in lines:
            choices = [f"{self._label}{choice}" for choice in (line, *shorter)]
            whole = next((choice for choice in choices if not is_too_wide(choice)), choices[-1])
            self._print(fitted(whole) if fit else whole)
            log.info(line.strip())

    def _start(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal or bool(self._label),
        )
        self._task = self._bar.add_task("starting", total=self._num_rounds)
        self._bar.start()

    def _stop(self) -> None:
        self._bar.stop()

    def _print(self, line: str) -> None:
        self._console.print(printable(line), markup=False)

    def _show(self, rounds: float, text: str | None = None) -> None:
        """Move the bar to a number of rounds, part of one included, and say what is under way."""
        self._bar.update(self._task, completed=rounds, description=text)
