"""One experiment, from a checked configuration to a complete run folder."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fedexp.backends import backend
from fedexp.backends.grid import CohortGrid
from fedexp.config.schema import Config
from fedexp.data.federated import federate
from fedexp.federation.conclusion import conclude
from fedexp.federation.evaluation import ServerEvaluation
from fedexp.federation.rounds import RoundLoop
from fedexp.flower.strategies import build_strategy
from fedexp.models.networks import buffer_names, initial_weights
from fedexp.preview import describe_partition
from fedexp.tracking.run_folder import RunFolder, without_secrets
from fedexp.tracking.terminal import Display
from fedexp.tracking.trackers import Trackers

log = logging.getLogger("fedexp")


def run_experiment(
    config: Config,
    run_dir: Path,
    *,
    overrides: Sequence[str] = (),
    sweep: str | None = None,
    label: str = "",
    verbose: bool = False,
) -> dict[str, Any]:
    """Run one experiment and write its folder.

    Args:
        config: What to run; must have passed :func:`fedexp.config.validation.validate`.
        run_dir: The run's folder; made if absent.
        overrides: The command-line overrides that make this configuration, to be kept with the run.
        sweep: Name of the multirun that the run is part of, if any.
        label: Stands before every line that is printed, where several runs print at the same time.
        verbose: Let Flower speak.

    Returns:
        What stands in summary.json.

    Raises:
        FedexpError: If the run cannot go on. The folder then says ``failed`` and why.
    """
    _quieten_flower(verbose)
    trackers = Trackers(config, run_dir, sweep)
    display = Display(config, run_dir, label)
    folder = RunFolder(run_dir, config, overrides, trackers.on_round)
    try:
        with display:
            trackers.open()
            summary = _run(config, folder, display, verbose)
    except (KeyboardInterrupt, SystemExit):  # rich raises the latter where its reader is gone
        display.say(*trackers.finish(folder.finish("interrupted")))
        raise
    except Exception as error:
        reason = without_secrets(f"{type(error).__name__}: {error}")
        display.say(*trackers.finish(folder.finish("failed", error=reason)))
        raise
    display.say(*trackers.finish(summary))
    return summary


def _run(config: Config, folder: RunFolder, display: Display, verbose: bool) -> dict[str, Any]:
    data = federate(config)
    folder.write_json("partition.json", describe_partition(config, data))
    evaluation = ServerEvaluation(config, data)
    loop = RoundLoop(
        config,
        build_strategy(config, buffer_names(config.model, data.spec)),
        evaluation,
        folder,
        initial_weights(config.model, data.spec, config.seed),
        display.progress,
    )
    backend.run_server(config, data, _timed_start(loop, folder), verbose=verbose)
    summary = conclude(config, data, evaluation, folder, loop.outcome)
    display.conclude(loop.outcome)
    return summary


def _quieten_flower(verbose: bool) -> None:
    flower = logging.getLogger("flwr")
    flower.setLevel(logging.INFO if verbose else logging.ERROR)
    if not verbose:  # what it says still reaches run.log, through the root logger
        flower.handlers.clear()
    flower.propagate = not verbose


def _timed_start(loop: RoundLoop, folder: RunFolder) -> Callable[[CohortGrid], None]:
    def server(grid: CohortGrid) -> None:
        gc.collect()
        gc.freeze()  # else every few rounds a collection scans all that torch's import left: 0.2 s
        folder.add_timing(0, "startup", folder.seconds())
        try:
            loop.run(grid)
        finally:
            gc.unfreeze()  # a notebook's own garbage is frozen with the rest

    return server
