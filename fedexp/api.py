"""Experiments from Python, for notebooks: run, then frames and figures.

from fedexp.api import compare, figures, run

found = run("strategy=fedavg,local_only", "seed=0,1")
compare(found).table
figures.learning_curves(found)
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedexp.analysis.comparison import compare
from fedexp.analysis.results import Results, load
from fedexp.config.composition import Job, plan, stamp
from fedexp.core.options import ConfigError, FedexpError
from fedexp.data import federated as data
from fedexp.experiment import run_experiment
from fedexp.tracking import trackers as tracking
from fedexp.tracking.run_folder import without_secrets

if TYPE_CHECKING:
    from fedexp.analysis import figures

__all__ = ["compare", "figures", "load", "run"]


def __getattr__(name: str) -> Any:
    """Import figures when they are asked for: seaborn takes a second."""
    if name == "figures":
        from fedexp.analysis import figures

        return figures
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def run(*overrides: str, folder: str | Path | None = None) -> Results:
    """Run an experiment, or every combination of several values, as ``fedexp -m`` does.

    Ray stays up for the next call. A run that fails is recorded, named on stderr and in
    ``problems()``, and does not end the others.

    Args:
        overrides: Hydra overrides such as ``"strategy=fedavg,local_only"`` or ``"clients.num=10"``.
        folder: Where the runs' folders go; None is ``results/<name>/<stamp>`` in the working directory.

    Returns:
        What :func:`fedexp.analysis.results.load` reads from that folder.

    Raises:
        ConfigError: With one line for every mistake; nothing is written then.
        FedexpError: If a dataset is not there and cannot be downloaded, or a tracker cannot be had.
    """
    jobs = plan(overrides, multirun=True)
    if any(job.chosen_later for job in jobs):
        raise ConfigError(
            ["a sweeper that chooses its jobs as it goes runs from the command line only"]
        )
    if any(job.config.mode != "train" for job in jobs):
        raise ConfigError(["mode=partition trains nothing: run it from the command line"])
    for dataset in {repr(job.config.dataset): job.config.dataset for job in jobs}.values():
        data.ensure(dataset)
    for mirrors in {repr(job.config.tracking): job.config.tracking for job in jobs}.values():
        tracking.ensure(mirrors)
    first = jobs[0].config
    root = Path(folder) if folder is not None else Path("results") / first.name / stamp()
    for number, job in enumerate(jobs):
        config = job.config
        name = f"{number}-{config.strategy.name}-s{config.seed}"
        _run_one(job, root / name if len(jobs) > 1 else root, root if len(jobs) > 1 else None)
    return load(root)


def _run_one(job: Job, run_dir: Path, sweep_dir: Path | None) -> None:
    sweep = None if sweep_dir is None else "-".join(sweep_dir.parts[-2:])
    with _log_to(run_dir):
        try:
            run_experiment(job.config, run_dir, overrides=job.overrides, sweep=sweep)
        except Exception as error:
            logging.getLogger("fedexp").exception("the run failed")
            kind = "" if isinstance(error, FedexpError) else f"{type(error).__name__}: "
            reason = without_secrets(f"{kind}{error}")
            print(f"fedexp: run failed: {reason} ({run_dir / 'run.log'})", file=sys.stderr)


@contextmanager
def _log_to(run_dir: Path) -> Iterator[None]:
    """Write run.log, as Hydra does for the command line."""
    run_dir.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(run_dir / "run.log")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    fedexp = logging.getLogger("fedexp")
    level = fedexp.level
    fedexp.addHandler(handler)
    fedexp.setLevel(logging.INFO)
    try:
        yield
    finally:
        fedexp.removeHandler(handler)
        fedexp.setLevel(level)
        handler.close()
