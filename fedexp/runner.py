"""The one way to run jobs, for the command line and for Python alike."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from fedexp.config.composition import plan
from fedexp.config.plugins import plugins_in_use, strangers_in
from fedexp.config.schema import Config
from fedexp.core import forked, owner, signals, terminal
from fedexp.core.files import DiscreetFormatter, reason, try_folder, unwritable
from fedexp.core.logs import RunLog
from fedexp.core.machine import compute_portably, computes_portably
from fedexp.core.options import FedexpError
from fedexp.data.loading import load
from fedexp.federation.events import DIVERGED, RunInfo

if TYPE_CHECKING:
    from fedexp.tracking.terminal import Terminal

log = logging.getLogger("fedexp")


def ensure(configs: Iterable[Config], *, here: bool = True) -> None:
    """Refuse what cannot run here, before anything else is started or written.

    Args:
        configs: What is to run.
        here: Whether on this machine; what another one has to offer is seen there.

    Raises:
        FedexpError: If this machine lacks what clients are to run on, a dataset is not there and cannot
            be downloaded, a tracker cannot be had, or code from outside does not keep to its contract.
    """
    from fedexp.backends import resources
    from fedexp.tracking import trackers

    configs = list(configs)
    if here:
        _settle_kernels(configs)
    if not here and shutil.which("srun") is None:
        raise FedexpError(
            "hydra/launcher=submitit_slurm: there is no srun on this machine; run it on a login node of "
            "the cluster, or try it here with hydra/launcher=submitit_local"
        )
    backends = {repr(c.backend): c.backend for c in configs if c.mode == "train" and here}
    for backend in backends.values():
        resources.ensure(backend)
    for dataset in {repr(c.dataset): c.dataset for c in configs}.values():
        dataset.ensure()
    models = {repr((c.model, c.dataset)): c for c in configs if c.mode == "train"}
    for config in models.values():
        config.model.ensure(config.dataset.spec)
    for mirrors in {repr(c.tracking): c.tracking for c in configs}.values():
        trackers.ensure(mirrors)
    ensure_installed(configs)
    for config in {str(key): c for c in configs if (key := strangers_in(c))}.values():
        from fedexp.testing import try_out

        forked.has_trained = True  # a model from outside is, and torch's threads stay
        try_out(config)


def _settle_kernels(configs: Sequence[Config]) -> None:
    """Have this process compute portably, or not, before it computes anything.

    Raises:
        FedexpError: If it cannot, or has settled for the other already.
    """
    wanted = {config.backend.portable for config in configs if config.mode == "train"}
    if len(wanted) > 1:
        raise FedexpError(
            "backend.portable must be the same for all runs of a command, as torch settles it once: take "
            "a command for true and one for false"
        )
    if True in wanted:
        if forked.has_trained and not computes_portably():  # MKL has settled by then
            raise FedexpError(
                "backend.portable=true: an earlier run of this process computed otherwise, and torch "
                "settles it once: take another process"
            )
        compute_portably()
    elif wanted and computes_portably():
        raise FedexpError(
            "backend.portable=false: torch computes portably in this process since an earlier run, and "
            "settles it once: take another process"
        )


def ensure_installed(configs: Iterable[Config]) -> None:
    """Refuse code that clients would need and that is not sent to them.

    Raises:
        FedexpError: With the choice, its file and the remedy.
    """
    for config in configs:
        if config.backend.takes_code or config.mode != "train":
            continue
        for used in plugins_in_use(config):
            if "package" not in used:
                raise FedexpError(
                    f"backend={config.backend.name}: {used['provides'][0]} is known to {used['file']} "
                    "alone, and SuperNodes are sent no code: install it on them as a package "
                    "(docs/extend.md), or choose another backend"
                )


def ensure_folders(folders: Sequence[Path | None], sweep: Path | None = None) -> None:
    """Refuse a command none of whose folders can be written, before anything else is started.

    Where only some cannot, those jobs fail and the others run.

    Args:
        folders: The jobs'; None where a sweeper will choose them.
        sweep: That of the multirun, if they are one.

    Raises:
        FedexpError: A line for each folder.
    """
    if sweep is not None:
        try_folder(sweep)
    problems = []
    for folder in folders:
        if folder is not None:
            try:
                try_folder(folder)
            except FedexpError as error:
                problems.append(str(error))
    if problems and len(problems) == len(folders):
        raise FedexpError("\n".join(dict.fromkeys(problems)))


def warm_up(config: Config) -> None:
    """Import what a run needs and read its data, while something else is being waited for."""
    import fedexp.experiment  # noqa: F401

    if not config.dataset.remote:
        load(config.dataset)


def planned(
    overrides: Sequence[str], files: Mapping[str, str | None], folder: Path, sweep: str | None
) -> RunInfo:
    """Return a job that was planned but not begun.

    Raises:
        ConfigError: If its overrides are no longer sound.
    """
    # An experiment may ask for a multirun by itself; this is one job of it.
    names = ("config_dir", "config_name", "config_path")
    config_dir, config_name, config_path = (files.get(name) for name in names)
    (job,) = plan(
        [*overrides, "hydra.mode=RUN"],
        multirun=False,
        config_dir=config_dir,
        config_name=config_name,
        config_path=config_path,
    )
    return RunInfo(job.config, folder, overrides, sweep)


def tell_table(sweep: Path, by: Sequence[str] = ()) -> bool:
    """Print the table of a multirun; return whether all of its runs completed, and somebody reads it.

    Args:
        sweep: Its folder.
        by: Options that tell rows apart; none stands for the strategy and what varies.
    """
    from fedexp.analysis.tables import closing_table
    from fedexp.tracking.trackers import sync_lines

    text, all_completed = closing_table(sweep, terminal.width(), by)
    try:
        print(terminal.printable("\n".join([text, *sync_lines(sweep)])), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return all_completed


def leave(code: int, *, at_once: bool = True) -> NoReturn:
    """End the process once all is written: tearing down torch's libraries takes most of a second.

    Args:
        code: The exit code.
        at_once: Whether to do without a full exit. Processes of a launcher are ended by nothing else.
    """
    signals.ignore_signals()
    owner.release()
    if not at_once:
        sys.exit(code)
    session = sys.modules.get("fedexp.backends.ray_session")
    if session is not None:
        end = getattr(session, "end", None)
        if end is not None:  # else a thread is importing it, and nothing has started
            end()
    elif "ray" in sys.modules:
        sys.modules["ray"].shutdown()
    if "fedexp.backends.rehearsal" in sys.modules:
        sys.modules["fedexp.backends.rehearsal"].shutdown()
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()  # ends its service process
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # a shell may have closed it
            with suppress(BrokenPipeError):  # nobody reads on; the code tells how it went
                stream.flush()
    os._exit(code)


@contextmanager
def logging_to(folder: Path) -> Iterator[None]:
    """Write run.log, as Hydra does for the command line.

    Raises:
        FedexpError: If the folder cannot be written.
    """
    with unwritable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handler = RunLog(folder / "run.log")
    handler.setFormatter(DiscreetFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        handler.close()


def sweep_name(folder: Path) -> str:
    """Return what a multirun is called: the experiment's name and the stamp."""
    return "-".join(folder.parts[-2:])


def run_job(
    run: RunInfo, *, verbose: bool = False, shown: Terminal | None = None
) -> dict[str, Any]:
    """Run one job.

    Args:
        run: What to run, and where.
        verbose: Let Flower speak.
        shown: Shows a person how it goes; None is the terminal.

    Returns:
        What stands in summary.json; nothing where ``mode=partition`` trains nothing.
    """
    if run.config.mode == "partition":
        from fedexp.preview import show_partition

        show_partition(run.config, run.folder)
        return {}
    from fedexp.experiment import run_experiment

    return run_experiment(run, verbose=verbose, shown=shown)


def run_logged(run: RunInfo, shown: Terminal | None = None) -> bool:
    """Run a job with a run.log of its own, and tell a failure; return whether it completed.

    Args:
        run: What to run, and where.
        shown: Shows a person how it goes; None is the terminal.
    """
    completed = False
    with telling_failure(run.folder), logging_to(run.folder), telling_failure(run.folder):
        completed = run_job(run, shown=shown).get("status") != DIVERGED
    return completed


@contextmanager
def telling_failure(folder: Path, *, reraise: bool = False) -> Iterator[None]:
    """Run a block that runs a job; what it raises is logged, named on stderr, and ends nothing else.

    Args:
        folder: The job's.
        reraise: Raise it, too: a sweeper that learns from its jobs must be told.
    """
    try:
        yield
    except Exception as error:
        log.exception("the run failed")
        print(f"fedexp: run failed: {reason(error)} ({folder / 'run.log'})", file=sys.stderr)
        if reraise:
            raise
