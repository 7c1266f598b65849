"""What a person sees of a run: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from fedexp.config.schema import Config
from fedexp.federation import rounds

log = logging.getLogger("fedexp")


class Display:
    """Show the rounds of one run as they pass; the same lines go to run.log.

    Args:
        config: What runs.
        run_dir: Its folder, named at the end.
        label: Stands before every line, where several runs print at the same time.
    """

    def __init__(self, config: Config, run_dir: Path, label: str = "") -> None:
        self._config, self._run_dir = config, run_dir
        self._label = f"{label}: " if label else ""
        self._console = Console(highlight=False, soft_wrap=True)
        self._live = self._console.is_terminal and not label
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._live,
        )
        self._task = self._bar.add_task("starting", total=config.num_rounds)
        self._last = time.monotonic()
        self.progress = rounds.Progress(self._on_clients, self._on_round)

    def __enter__(self) -> Display:
        config = self._config
        self.say(
            f"{config.name}: strategy={config.strategy.name} dataset={config.dataset.name} "
            f"partition={config.partition.name} clients={config.clients.num} "
            f"rounds={config.num_rounds} backend={config.backend.name} seed={config.seed}"
        )
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def _on_clients(self, server_round: int, phase: str, done: int, total: int) -> None:
        verb = "training" if phase == "train" else "evaluating"
        self._bar.update(
            self._task,
            completed=server_round - 1 + done / total,
            description=f"round {server_round}/{self._config.num_rounds}: {verb} {done}/{total}",
        )

    def _on_round(self, server_round: int, accuracy: float, loss: float) -> None:
        now = time.monotonic()
        seconds, self._last = now - self._last, now
        model = "local models' mean" if self._config.strategy.name == "local_only" else "global"
        took = f"  {seconds:.1f} s" if server_round else "  (initial weights)"
        self.say(
            f"  round {server_round}/{self._config.num_rounds}  {model} test accuracy "
            f"{accuracy:.3f}  loss {loss:.3f}{took}"
        )
        self._bar.update(self._task, completed=server_round)

    def conclude(self, outcome: rounds.Outcome) -> None:
        """Say how the run ended and where its folder is."""
        if outcome.stopped_early:
            stop = self._config.stop
            self.say(
                f"  stopped after round {outcome.rounds}: {stop.metric} improved by less than "
                f"{stop.min_delta} for {stop.patience} rounds"
            )
        self.say(f"  {os.path.relpath(self._run_dir)}")

    def say(self, *lines: str) -> None:
        """Print lines, and note them in run.log."""
        for line in lines:
            self._console.print(self._label + line, markup=False)
            log.info(line.strip())
