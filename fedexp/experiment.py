"""One experiment, from a checked configuration to a complete run folder."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from fedexp.config.schema import Config
from fedexp.core import garbage
from fedexp.core.files import reason
from fedexp.core.options import DivergedError, FedexpError
from fedexp.federation.conclusion import conclude, head, picture_of
from fedexp.federation.dealing import client_rows, describe_partition, federate
from fedexp.federation.evaluation import NodeEvaluation, ServerEvaluation
from fedexp.federation.events import (
    DIVERGED,
    FAILED,
    INTERRUPTED,
    Ending,
    Listener,
    Listeners,
    RunInfo,
)
from fedexp.federation.guards import Holdings
from fedexp.federation.on_nodes import agreement_of, describe_agreement
from fedexp.federation.outcome import Outcome
from fedexp.federation.room import ensure_room
from fedexp.federation.rounds import RoundLoop
from fedexp.federation.servers import build_server
from fedexp.federation.snapshot import Keeper
from fedexp.flower.grid import CohortGrid
from fedexp.tracking.keeping import RunKeeper
from fedexp.tracking.run_folder import RunFolder
from fedexp.tracking.terminal import Terminal
from fedexp.tracking.trackers import Trackers

log = logging.getLogger("fedexp")


def run_experiment(
    run: RunInfo, *, verbose: bool = False, shown: Terminal | None = None
) -> dict[str, Any]:
    """Run one experiment and write its folder.

    Args:
        run: What to run, and where it is written. The configuration must have passed
            :func:`fedexp.config.validation.validate`.
        verbose: Let Flower speak.
        shown: Shows a person how it goes; None is the terminal.

    Returns:
        What stands in summary.json.

    Raises:
        FedexpError: If the run cannot go on. The folder then says ``failed`` or ``diverged`` and why,
            unless it is the folder that cannot be written.
    """
    quieten_flower(verbose)
    folder, terminal = RunFolder(), shown or Terminal()
    trackers = Trackers(terminal.say)
    listeners = Listeners(folder, terminal, trackers)
    clock = Clock(float(run.resume["seconds"]) if run.resume else 0.0)
    keeper = RunKeeper(run, folder, trackers, clock.seconds, terminal.say)
    attempt = Attempt(run.config, listeners, keeper, run.resume, clock, verbose=verbose)
    try:
        listeners.begin(run)
        keeper.begin()
        ending = attempt.complete()
        listeners.end(ending)
    except (KeyboardInterrupt, SystemExit):  # rich raises the latter where its reader is gone
        listeners.end(attempt.broken_off(INTERRUPTED))
        raise
    except Exception as error:
        status = DIVERGED if isinstance(error, DivergedError) else FAILED
        try:
            listeners.end(attempt.broken_off(status, reason(error)))
        except FedexpError:  # what came first is what is told
            log.exception("the run's ending cannot be written")
        raise
    return folder.summary


class Clock:
    """Counts the seconds of a run, those of earlier processes included."""

    def __init__(self, before: float = 0.0) -> None:
        self._since = time.monotonic() - before

    def seconds(self) -> float:
        """Return the seconds so far."""
        return time.monotonic() - self._since


class Attempt:
    """One run on its way; knows how far it came.

    Args:
        config: The experiment.
        listener: Is told how it goes.
        keeper: Keeps the state after rounds.
        resume: A state that was kept, to go on from.
        clock: Counts the run's seconds.
        verbose: Let Flower speak.
    """

    def __init__(
        self,
        config: Config,
        listener: Listener,
        keeper: Keeper | None = None,
        resume: Mapping[str, Any] | None = None,
        clock: Clock | None = None,
        *,
        verbose: bool = False,
    ) -> None:
        self._config, self._listener, self._verbose = config, listener, verbose
        self._keeper, self._resume = keeper or Keeper(), resume
        self._clock = clock or Clock()
        self._partition: dict[str, Any] = {}
        self._outcome: Outcome | None = None

    def complete(self) -> Ending:
        """Run from the data to the conclusion."""
        config = self._config
        data = None if config.dataset.remote else federate(config)
        evaluation: ServerEvaluation | NodeEvaluation
        if data is None:
            found = agreement_of(config)
            self._partition = describe_agreement(config)
            evaluation = NodeEvaluation(config, found.spec, found.mean_square)
            holdings = Holdings(found.num_train.__getitem__, found.num_test.__getitem__)
        else:
            self._partition = describe_partition(config, data)
            evaluation = ServerEvaluation(config, data)
            holdings = Holdings(data.partition.size, data.client_test.size)
        self._listener.dealt(self._partition)
        picture = picture_of(config, self._partition)
        server = build_server(config, evaluation)
        ensure_room(config, server, evaluation.initial)
        loop = RoundLoop(config, server, evaluation, self._listener, holdings)
        self._outcome = loop.outcome
        # A module per backend: whoever reads the command line knows the file.
        backend = import_module(f"fedexp.backends.{config.backend.module}")
        backend.run(config, data, self._body(loop), verbose=self._verbose)
        ending = conclude(config, self._partition, evaluation, loop.outcome, picture)
        return dataclasses.replace(ending, summary={**ending.summary, "seconds": self._seconds()})

    def broken_off(self, status: str, error: str | None = None) -> Ending:
        """Return the ending of a run that did not complete."""
        outcome, config = self._outcome, self._config
        summary = {
            **head(config, status),
            "seconds": self._seconds(),
            "rounds": outcome.rounds if outcome else 0,
            **({} if error is None else {"error": error}),
        }
        own = outcome.own if outcome else {}
        clients = client_rows(self._partition, own, config.measured) if self._partition else []
        return Ending(status, summary, clients=clients)

    def _seconds(self) -> float:
        return round(self._clock.seconds(), 3)

    def _body(self, loop: RoundLoop) -> Callable[[CohortGrid], None]:
        def server(grid: CohortGrid) -> None:
            with garbage.undisturbed():
                loop.run(grid, self._clock.seconds(), self._keeper, self._resume)

        return server


def quieten_flower(verbose: bool = False) -> None:
    """Keep Flower's own lines off the terminal, unless asked not to."""
    flower = logging.getLogger("flwr")
    flower.setLevel(logging.INFO if verbose else logging.ERROR)
    if not verbose:  # what it says still reaches run.log, through the root logger
        flower.handlers.clear()
    flower.propagate = not verbose
