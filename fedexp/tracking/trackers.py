"""Mirrors of a run's folder, for dashboards: W&B and TensorBoard, one or both.

The folder is the truth, so a mirror can fail without harm: what goes wrong in one is noted in run.log,
said once at the end of the run, and ends that mirror alone.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from shlex import quote
from typing import Protocol

from fedexp.config.tracking import TrackingConfig
from fedexp.core.options import FedexpError
from fedexp.federation.events import Ending, Listener, RoundReport, RunInfo
from fedexp.tracking.replay import past_rounds
from fedexp.tracking.scalars import Scalars

log = logging.getLogger("fedexp")


class Mirror(Protocol):
    """What a tracker has to do.

    Attributes:
        wants_past: Whether it is told the rounds before the one that a run is resumed from: it begins
            anew then, and does not go on with what it has.
        id: What it is called there, for a resumption; empty if it has no name of its own.
    """

    wants_past: bool
    id: str

    def on_round(self, server_round: int, numbers: Mapping[str, float]) -> None:
        """Take in numbers of a round, each under its name; the last round may come in two parts."""

    def finish(self, ending: Ending) -> list[str]:
        """Take in how the run ended, and close; return what the user should be told, a line each."""


def ensure(config: TrackingConfig) -> None:
    """Refuse what cannot be tracked here, before anything is started or written.

    Raises:
        FedexpError: If a package is absent, W&B is to be online and has no key, or would refuse a name.
    """
    if config.tensorboard and find_spec("tensorboard") is None:
        raise FedexpError(
            "tracking=tensorboard needs the package tensorboard: pip install 'fedexp[tensorboard]'"
        )
    if config.wandb:
        from fedexp.tracking.wandb import DISABLED, ensure_names, wandb_mode

        if wandb_mode(config) != DISABLED:
            ensure_names(config)


def sync_lines(folder: Path) -> list[str]:
    """Return the command that sends what W&B keeps of a multirun offline; none where there is nothing.

    The folders of the runs are a pattern, so that 200 of them are one line.
    """
    depths = {len(path.relative_to(folder).parts) for path in folder.rglob("wandb/offline-run-*")}
    where = quote(os.path.relpath(folder))
    patterns = [f"{where}/{'*/' * (depth - 2)}wandb/offline-run-*" for depth in sorted(depths)]
    return [f"W&B, offline: wandb sync {' '.join(patterns)}"] if patterns else []


class Trackers(Listener):
    """All mirrors of one run, each on its own.

    Args:
        say: Tells the user something.
    """

    def __init__(self, say: Callable[..., None]) -> None:
        self._say = say
        self._scalars = Scalars()
        self._mirrors: dict[str, Mirror] = {}
        self._told: dict[str, float] = {}
        self._said: list[str] = []

    def begin(self, run: RunInfo) -> None:
        """Open the mirrors that the configuration asks for.

        Raises:
            FedexpError: If one of them cannot be had at all; see :func:`ensure`.
        """
        tracking = run.config.tracking
        self._scalars = Scalars(run.config.task.headline)
        ensure(tracking)
        if tracking.wandb:
            self._guard("W&B", partial(self._open_wandb, run))
        if tracking.tensorboard:
            self._guard("TensorBoard", partial(self._open_tensorboard, run))
        if run.resume and self._mirrors:
            for report in past_rounds(run.folder):
                self._told = self._scalars.of(report)
                self._mirror(report.round, self._told, past=True)

    def ids(self) -> dict[str, str]:
        """Return what the run is called in every mirror that has a name for it."""
        return {name: mirror.id for name, mirror in self._mirrors.items() if mirror.id}

    def round(self, report: RoundReport) -> None:
        """Mirror a round."""
        self._told = self._scalars.of(report)
        self._mirror(report.round, self._told)

    def end(self, ending: Ending) -> None:
        """End every mirror, and tell the user what each has to say."""
        last = int(ending.summary.get("rounds", 0))
        # What validation selected may be of earlier rounds, which are over; isolated clients select one
        # each, and a mean over those that chose the last one would pass for that of all.
        rows = ending.measurements if {m.round for m in ending.measurements} == {last} else ()
        new = self._scalars.of_clients(rows)
        self._mirror(last, {k: v for k, v in new.items() if k not in self._told})
        for name, mirror in list(self._mirrors.items()):
            self._guard(name, partial(self._finish, mirror, ending))
        self._say(*self._said)

    def _mirror(
        self, server_round: int, numbers: Mapping[str, float], *, past: bool = False
    ) -> None:
        for name, mirror in list(self._mirrors.items()):
            if numbers and (mirror.wants_past or not past):
                self._guard(name, partial(mirror.on_round, server_round, numbers))

    def _finish(self, mirror: Mirror, ending: Ending) -> None:
        self._said += mirror.finish(ending)

    def _open_wandb(self, run: RunInfo) -> None:
        from fedexp.tracking.wandb import DISABLED, WandbMirror, wandb_mode

        if wandb_mode(run.config.tracking) != DISABLED:
            self._mirrors["W&B"] = WandbMirror(run)

    def _open_tensorboard(self, run: RunInfo) -> None:
        from fedexp.tracking.tensorboard import TensorBoardMirror

        self._mirrors["TensorBoard"] = TensorBoardMirror(run)

    def _guard(self, name: str, step: Callable[[], None]) -> None:
        try:
            step()
        except FedexpError:
            raise
        except Exception as error:
            self._mirrors.pop(name, None)
            log.exception("%s failed", name)
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            self._said.append(
                f"  {name} has not all of this run: {reason} (run.log has more; the folder is complete)"
            )
