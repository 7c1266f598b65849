"""The corners of Hydra and OmegaConf that are not their public interface.

``tests/config/test_hydra_internals.py`` says what each is needed for. Both are capped at the versions
that they were tried with (pyproject.toml).
"""

from __future__ import annotations

import logging
import math
import os
import re
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, ClassVar

import hydra
from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.core.utils import (
    JobReturn,
    JobStatus,
    configure_log,
    filter_overrides,
    run_job,
    setup_globals,
)
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from fedexp.config.beside import Beside, JobLine
from fedexp.core.pace import Pace

log = logging.getLogger(__name__)


def argument_parser() -> ArgumentParser:
    """Return the parser of Hydra's own flags, such as ``-m`` and ``--config-dir``."""
    parser = get_args_parser()
    for action in parser._actions:
        if "--version" in action.option_strings:
            action.version = f"fedexp {version('fedexp')} (Hydra {hydra.__version__})"  # type: ignore[attr-defined]
    return parser


def files_of(args: Namespace) -> dict[str, str | None]:
    """Return the flags that name files, as :func:`fedexp.config.source.source` takes them."""
    return {name: getattr(args, name) for name in ("config_dir", "config_name", "config_path")}


def words_of(args: Namespace, overrides: Sequence[str]) -> list[str]:
    """Return what stands for parsed flags on a command line, without those that name files."""
    shown = [f"--cfg={args.cfg}"] if args.cfg else []
    shown += [f"--info={args.info}"] if args.info else []
    shown += [f"--package={args.package}"] if args.package else []
    names = ("help", "hydra_help", "resolve", "run", "multirun", "shell_completion")
    flags = [f"--{name.replace('_', '-')}" for name in names if getattr(args, name)]
    return [*shown, *flags, *overrides]


def flag_errors(args: Namespace) -> list[str]:
    """Return a line for flags that Hydra would refuse, or should not be given."""
    alone = {
        "--run": args.run,
        "--multirun": args.multirun,
        "--cfg": args.cfg,
        "--info": args.info,
        "--shell-completion": args.shell_completion,
    }
    given = [flag for flag, value in alone.items() if value]
    errors = [f"{' and '.join(given)}: only one of them at a time"] if len(given) > 1 else []
    if args.resolve and not (args.cfg or args.help):
        errors.append("--resolve: goes with --cfg")
    if args.experimental_rerun is not None:
        errors.append(
            "--experimental-rerun: would run code from a file; a run is gone on with by fedexp resume, "
            "and begun again by --config-dir FOLDER --config-name config"
        )
    return errors


def quoted(text: str) -> str:
    """Return a text as the value of an override, whatever characters it has."""
    escaped = re.sub(r"(\\*)(?='|$)", lambda found: found[1] * 2, text).replace("'", "\\'")
    return "'" + escaped.replace("${", "\\${") + "'"


class PatientLauncher(BasicLauncher):
    """Hydra's own launcher, but a job whose folder cannot be made costs that job alone."""

    tell: ClassVar[Callable[[OSError], None]] = print
    say: ClassVar[Callable[[str], object]] = print
    beside: ClassVar[Beside | None] = None

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> list[JobReturn]:
        """Run jobs one after another, or beside one another."""
        setup_globals()
        assert self.config is not None
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        log.info("Launching %d jobs locally", len(job_overrides))
        at_once = 1 if self.beside is None else self.beside.processes
        self._pace, self._total = Pace(at_once=at_once), initial_job_idx + len(job_overrides)
        jobs: Sequence[JobLine] = list(enumerate(job_overrides, initial_job_idx))
        left = jobs
        done: dict[int, JobReturn | float | None] = {}
        if self.beside is not None:
            values, left = self.beside.run(jobs, self._announce, self._value)
            done.update(values)
            self._pace = Pace()
        for number, overrides in left:
            self._announce(number, overrides)
            done[number] = self._launch(number, overrides)
        return [_returned(done[number]) for number, _ in jobs]

    def _announce(self, number: int, overrides: Sequence[str]) -> None:
        if self._total > 1:
            left = self._pace.left(self._total - number)
            PatientLauncher.say(f"job {number + 1}/{self._total}{left}")
        log.info("\t#%d : %s", number, " ".join(filter_overrides(overrides)))

    def _value(self, number: int, overrides: Sequence[str]) -> float | None:
        found = self._launch(number, overrides)
        return None if found is None else float(found.return_value)

    def _launch(self, number: int, overrides: Sequence[str]) -> JobReturn | None:
        """Run a job; return None if it has no folder, which was told."""
        assert self.config is not None
        assert self.hydra_context is not None
        assert self.task_function is not None
        loader = self.hydra_context.config_loader
        config = loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        try:
            return run_job(
                hydra_context=self.hydra_context,
                task_function=self.task_function,
                config=config,
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
            )
        except OSError as error:  # a job's own errors never come this far
            PatientLauncher.tell(error)
            return None
        finally:
            configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)


def _returned(found: JobReturn | float | None) -> JobReturn:
    if isinstance(found, JobReturn):
        return found
    value = math.nan if found is None else found
    return JobReturn(status=JobStatus.COMPLETED, _return_value=value)


def launch_patiently(
    tell: Callable[[OSError], None],
    say: Callable[[str], object] = print,
    beside: Beside | None = None,
) -> None:
    """Have jobs that follow one another be launched by :class:`PatientLauncher`.

    Hydra's own sweeper would compose every job to see that it can; they are checked by then.

    Args:
        tell: Is told why a job's folder cannot be made.
        say: Is told which job begins, and how long the rest will take.
        beside: How jobs run beside one another; None runs one after another.
    """
    PatientLauncher.tell = staticmethod(tell)
    PatientLauncher.say = staticmethod(say)
    PatientLauncher.beside = beside
    known = Plugins.instance().class_name_to_class
    known[f"{BasicLauncher.__module__}.{BasicLauncher.__name__}"] = PatientLauncher
    # Hydra's look for plug-ins imports this module once more: the class is another one by now.
    sweeper: Any = known[f"{BasicSweeper.__module__}.{BasicSweeper.__name__}"]
    sweeper.validate_batch_is_legal = lambda self, batch: None


@contextmanager
def raising() -> Iterator[None]:
    """Have Hydra raise what stops it; it would print a traceback and exit."""
    variable = "HYDRA_FULL_ERROR"
    if variable in os.environ:
        yield
        return
    os.environ[variable] = "1"
    try:
        yield
    finally:
        os.environ.pop(variable, None)


def split_into_jobs(overrides: list[Any]) -> list[list[str]]:
    """Return the overrides of every job that Hydra's own sweeper would run, in its order."""
    (jobs,) = BasicSweeper.split_arguments(overrides, None)
    return [list(job) for job in jobs]


def is_basic_sweeper(hydra: Any) -> bool:
    """Say whether Hydra's own sweeper runs the jobs: one that is told them all beforehand."""
    return str(hydra.sweeper._target_).endswith("BasicSweeper")


BASIC = "basic"
"""Hydra's own launcher, which runs one job after another in this process."""


def launcher_of(hydra: Any) -> str:
    """Return what launches the jobs: ``basic``, ``joblib``, ``slurm``, ..."""
    return str(hydra.launcher._target_).rpartition(".")[2].removesuffix("Launcher").lower()


def is_basic_launcher(hydra: Any) -> bool:
    """Say whether Hydra's own launcher runs the jobs: one after another."""
    return launcher_of(hydra) == BASIC


def is_chosen(group: str, config_name: str, overrides: Sequence[str]) -> bool:
    """Say whether a choice of a group was made by anything but the list that it is on at first."""
    loader: Any = GlobalHydra.instance().config_loader()
    found = loader.compute_defaults_list(config_name, list(overrides), RunMode.RUN)
    return group in found.overrides.override_choices


def writable_schema(entry: type) -> DictConfig:
    """Return a dataclass as a node that overrides can change, though the dataclass is frozen."""
    node = OmegaConf.structured(entry)
    OmegaConf.set_readonly(node, None)
    for key in node:
        child = node._get_node(key)
        if isinstance(child, DictConfig | ListConfig):
            OmegaConf.set_readonly(child, None)
            _open_mappings(child)
    assert isinstance(node, DictConfig)
    return node


def _open_mappings(node: Any) -> None:
    """Let a mapping of any key take any key; validation knows which are meant."""
    if OmegaConf.get_type(node) is dict:
        OmegaConf.set_struct(node, False)
    elif isinstance(node, DictConfig) and not node._is_missing() and not node._is_none():
        for key in node:
            child = node._get_node(key)
            if isinstance(child, DictConfig):
                _open_mappings(child)


def child_of(node: DictConfig, key: str) -> DictConfig | None:
    """Return a filled mapping below a node; None for anything else."""
    child = node._get_node(key)
    filled = isinstance(child, DictConfig) and not child._is_none() and not child._is_missing()
    return child if filled else None  # type: ignore[return-value]
