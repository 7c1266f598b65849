"""Experiments from Python, for notebooks: run, then frames and figures.

from fedexp.api import compare, figures, run

found = run("strategy=fedavg,local_only", "seed=0,1")
compare(found).table
figures.learning_curves(found)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedexp import runner
from fedexp.analysis.comparison import compare
from fedexp.analysis.results import Results, load
from fedexp.config.callbacks import add_to_manifest, manifest_of, refuse_promised
from fedexp.config.composition import Job, plan
from fedexp.config.folders import folder_errors, free_name, stamp
from fedexp.config.schema import Config
from fedexp.core import owner, terminal
from fedexp.core.files import try_folder, unwritable
from fedexp.core.options import ConfigError
from fedexp.federation.events import RunInfo
from fedexp.tracking.trackers import sync_lines

if TYPE_CHECKING:
    from fedexp.analysis import figures

__all__ = ["compare", "figures", "load", "run"]


def __getattr__(name: str) -> Any:
    """Import figures when they are asked for: seaborn takes a second."""
    if name == "figures":
        from fedexp.analysis import figures

        return figures
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def run(
    *overrides: str, folder: str | Path | None = None, config_dir: str | Path | None = None
) -> Results:
    """Run an experiment, or every combination of several values, as ``fedexp -m`` does.

    Ray stays up for the next call. A run that fails is recorded, named on stderr and in
    ``problems()``, and does not end the others.

    Args:
        overrides: Hydra overrides such as ``"strategy=fedavg,local_only"`` or ``"clients.num=10"``.
        folder: Where the runs' folders go; None is ``results/<name>/<stamp>`` in the working directory. A
            single run needs one that holds none yet; several runs find places beside earlier ones.
        config_dir: A further folder of YAML files, as Hydra's ``--config-dir``.

    Returns:
        What :func:`fedexp.analysis.results.load` reads from that folder.

    Raises:
        ConfigError: With one line for every mistake; nothing is written then.
        FedexpError: If a dataset is not there and cannot be downloaded, or a tracker cannot be had.
        TypeError: If an override is no text.
    """
    for told in overrides:
        if not isinstance(told, str):
            raise TypeError(
                'run takes every override as a text of its own, as in run("rounds=2", "seed=0,1"), got '
                f"a {type(told).__name__}; of a list, write run(*overrides)"
            )
    jobs = plan(
        overrides, multirun=True, config_dir=None if config_dir is None else str(config_dir)
    )
    if any(job.chosen_later for job in jobs):
        raise ConfigError(
            ["a sweeper that chooses its jobs as it goes runs from the command line only"]
        )
    if any(job.config.mode != "train" for job in jobs):
        raise ConfigError(["mode=partition trains nothing: run it from the command line"])
    runner.ensure(job.config for job in jobs)
    first = jobs[0].config
    root = Path(folder) if folder is not None else Path("results") / first.name / stamp()
    several = len(jobs) > 1
    errors = [] if several else folder_errors([root], multirun=False, configs=[first])
    if errors:
        raise ConfigError(errors)
    try_folder(root)
    with unwritable(root):
        owner.reserve(root)
    try:
        _run_all(jobs, root, None if config_dir is None else str(config_dir))
    finally:
        owner.release()
    return load(root)


def _run_all(jobs: Sequence[Job], root: Path, config_dir: str | None) -> None:
    from fedexp.tracking import notebook

    bar = notebook.bar(len(jobs))
    if len(jobs) == 1:
        runner.run_logged(RunInfo(jobs[0].config, root, jobs[0].overrides), bar)
        return
    jobs = [
        replace(job, folder=root / free_name(str(root), f"{number}-{_name(job.config)}"))
        for number, job in enumerate(jobs)
    ]
    manifest = manifest_of(jobs, root, {"config_dir": config_dir})
    refuse_promised(root, manifest)
    with unwritable(root):
        add_to_manifest(root, manifest)
    for job in jobs:
        assert job.folder is not None
        run = RunInfo(job.config, job.folder, job.overrides, runner.sweep_name(root))
        runner.run_logged(run, bar)
    for line in sync_lines(root):
        print(terminal.printable(line))


def _name(config: Config) -> str:
    return f"{config.strategy.name}-s{config.seed}"
