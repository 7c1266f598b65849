"""From command-line overrides to checked configurations, through Hydra.

Everything that can be wrong with a command is found here, before Hydra makes a folder and before
torch or ray is imported: each mistake becomes one line that names the option and the remedy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict

from fedexp.config import sweeper
from fedexp.config.backend import InlineBackend
from fedexp.config.composing import composed, from_hydra, lines_of, parse, parse_all, register
from fedexp.config.folders import folder_errors, folder_of, moved_errors, pinned, sweep_of
from fedexp.config.hydra_internals import (
    BASIC,
    is_basic_sweeper,
    is_chosen,
    launcher_of,
    split_into_jobs,
)
from fedexp.config.hydra_memory import composing_once
from fedexp.config.schema import Config
from fedexp.config.source import CHOSEN, SLOTS, Source, conf_dir, source, without_plus
from fedexp.config.studies import StudyPlan
from fedexp.config.sweeping import bound, lacking, one_value, sweep_errors
from fedexp.core.options import ConfigError

MANY = 20
"""Jobs from which on a command says that it checks them."""


@dataclass(frozen=True)
class Job:
    """One run of a command.

    Attributes:
        overrides: What makes it, less what the whole command is about.
        config: Its checked configuration.
        chosen_later: Whether it only stands for the runs that a sweeper such as Optuna will choose.
        study: What it will choose them among.
        folder: What it will write, where that is known beforehand.
        sweep: The folder of the multirun that it is part of, where that is known beforehand.
        command: What Hydra is told for all jobs of the multirun.
        launcher: What starts it, by its name: ``basic`` runs one job after another in this process.
    """

    overrides: list[str]
    config: Config
    chosen_later: bool = False
    study: StudyPlan | None = None
    folder: Path | None = None
    sweep: Path | None = None
    command: Sequence[str] = ()
    launcher: str = BASIC


def compose_config(overrides: Sequence[str] = ()) -> Config:
    """Compose one configuration as ``fedexp OVERRIDES`` would.

    Args:
        overrides: Hydra overrides such as ``["strategy=fedavg", "clients.num=10"]``.

    Raises:
        ConfigError: With one line for every mistake.
    """
    (job,) = plan(overrides, multirun=False)
    return job.config


def composed_values(overrides: Sequence[str], **files: str | None) -> dict[str, Any]:
    """Return what overrides compose to, unchecked: nested dictionaries, without Hydra's own part.

    Args:
        overrides: Hydra overrides of one value each.
        files: As :func:`fedexp.config.source.source` takes them.

    Raises:
        ConfigError: If Hydra cannot compose them.
    """
    begin = source(**files)
    register()
    begin.register()
    with initialize_config_dir(config_dir=str(conf_dir()), version_base="1.3"):
        parsed, errors = parse_all(without_plus(overrides))
        errors += [f"{o.input_line}: one value, please" for o in parsed if o.is_sweep_override()]
        if errors:
            raise ConfigError(errors)
        node = composed(begin, lines_of(parsed))
    with open_dict(node):
        node.pop("hydra", None)
    values: Any = OmegaConf.to_container(node)
    return {str(key): value for key, value in values.items()}


def plan(
    overrides: Sequence[str],
    *,
    multirun: bool,
    config_dir: str | None = None,
    config_name: str | None = None,
    config_path: str | None = None,
    tell: Callable[[str], object] | None = None,
) -> list[Job]:
    """Compose and check every job of a command.

    Args:
        overrides: What stands on the command line.
        multirun: Whether ``-m`` was given; an experiment may also ask for a multirun by itself.
        config_dir: A further folder of YAML files (Hydra's ``--config-dir``).
        config_name: The file to begin with, as :func:`fedexp.config.source.source` finds it.
        config_path: Another such folder.
        tell: Is told what takes a while.

    Returns:
        The jobs in the order in which Hydra runs them; one for all, if a sweeper such as Optuna chooses
        them as it goes.

    Raises:
        ConfigError: With one line for every mistake in any job.
    """
    begin = source(config_dir, config_name, config_path)
    register()
    begin.register()
    with composing_once(), initialize_config_dir(config_dir=str(conf_dir()), version_base="1.3"):
        parsed, errors = parse_all(without_plus(overrides))
        swept = [o for o in parsed if o.is_sweep_override()]
        jobs: list[Job] = []
        try:
            base, parsed = _base(begin, parsed, multirun)
            if _is_multirun(base, multirun):
                jobs = _check_jobs(begin, base, parsed, tell)
            else:
                errors += [f"{o.input_line}: several values need a multirun (-m)" for o in swept]
                jobs = [Job(lines_of(parsed), _settled(base), folder=folder_of(base, None))]
                errors += folder_errors([jobs[0].folder], multirun=False, configs=[jobs[0].config])
        except ConfigError as error:
            errors += error.errors
    if errors:
        raise ConfigError(errors)
    return jobs


def _base(
    begin: Source, parsed: list[Override], multirun: bool
) -> tuple[DictConfig, list[Override]]:
    """Return what all jobs of a command have in common, and the overrides that make the jobs."""
    plain = [o for o in parsed if not o.is_sweep_override()]
    base = composed(begin, lines_of([o for o in plain if o not in bound(parsed)]))
    if not _is_multirun(base, multirun):
        return base, parsed
    if launcher_of(base.hydra) != BASIC and not _chooses_backend(begin, parsed):
        # Jobs run beside one another, each in a process of its own: Ray would be one more of those each.
        parsed = [*parsed, parse(f"backend={InlineBackend.name}")]
        return _base(begin, parsed, multirun)
    return base, parsed


def _chooses_backend(begin: Source, parsed: list[Override]) -> bool:
    """Say whether somebody has chosen where clients run: the command, or a file that it names."""
    options = {o.key_or_group.partition(".")[0] for o in parsed}
    swept = {o.key_or_group for o in parsed if o.is_sweep_override()}
    lines = lines_of([o for o in parsed if o.key_or_group in SLOTS and not o.is_sweep_override()])
    return (
        "backend" in options or bool(swept & set(SLOTS)) or is_chosen("backend", begin.name, lines)
    )


def _is_multirun(base: DictConfig, multirun: bool) -> bool:
    mode = OmegaConf.select(base, "hydra.mode")
    return multirun or (mode is not None and mode.name == "MULTIRUN")


def _params(base: DictConfig) -> list[Override]:
    """Return what an experiment sweeps by itself."""
    params = OmegaConf.select(base, "hydra.sweeper.params") if is_basic_sweeper(base.hydra) else {}
    return [parse(f"{key}={value}") for key, value in (params or {}).items()]


def _check_jobs(
    begin: Source,
    base: DictConfig,
    given: list[Override],
    tell: Callable[[str], object] | None,
) -> list[Job]:
    sweep, swept, launcher = sweep_of(base), _params(base), launcher_of(base.hydra)
    if is_basic_sweeper(base.hydra) and (errors := list(sweep_errors([*swept, *given]))):
        raise ConfigError(errors)
    late = bound(given, swept)
    parsed = [one_value(o, parse) if o in late else o for o in given]
    command = lines_of(parsed)
    if not is_basic_sweeper(base.hydra):
        return [_chosen_later(begin, base, parsed)]
    whole, refused = _of_multirun(base), lacking(late, [*swept, *given], partial(composed, begin))
    jobs, errors = [], list(refused.values())
    makes = [*swept, *(o for o in parsed if o.key_or_group not in refused)]
    listed = split_into_jobs(makes)
    if tell is not None and len(listed) >= MANY:
        tell(f"checking {len(listed)} jobs")
    for number, lines in enumerate(listed):
        try:
            node = composed(begin, lines)
            if foreign := [
                name for name, part in _of_multirun(node).items() if part != whole[name]
            ]:
                raise ConfigError([_needs_a_command(lines, makes, foreign)])
            if elsewhere := pinned(node, sweep):
                raise ConfigError(elsewhere)
            folder = folder_of(node, number)
            config = _settled(node)
            jobs.append(Job(lines, config, False, None, folder, sweep, command, launcher))
        except ConfigError as error:
            errors += [line for line in error.errors if line not in errors]
    if not errors:  # else some jobs are absent, and the others have other numbers
        configs = [job.config for job in jobs]
        errors = folder_errors([job.folder for job in jobs], multirun=True, configs=configs)
    if errors:
        raise ConfigError(errors)
    return jobs


def _chosen_later(begin: Source, base: DictConfig, parsed: list[Override]) -> Job:
    """Return what stands for the jobs that a sweeper such as Optuna chooses as it goes."""
    study, lines = None, lines_of(parsed)
    if sweeper.is_study(base.hydra):
        study = sweeper.study(
            base.hydra, parsed, parse, lambda lines: from_hydra(composed(begin, list(lines)))
        )
    config = _settled(base) if study is None else study.config
    launcher = launcher_of(base.hydra)
    return Job(lines, config, True, study, None, sweep_of(base), lines, launcher)


def _settled(node: DictConfig) -> Config:
    """Return a job's configuration, if Hydra's part goes with it."""
    config = from_hydra(node)
    if errors := moved_errors(node, config):
        raise ConfigError(errors)
    return config


def _of_multirun(node: DictConfig) -> dict[str, object]:
    """Return what a whole multirun has, and none of its jobs can have for itself."""
    names = ("mode", "sweeper", "launcher")
    parts = {name: OmegaConf.select(node.hydra, name) for name in names}
    return {
        name: OmegaConf.to_container(part) if isinstance(part, DictConfig) else part
        for name, part in parts.items()
    }


def _needs_a_command(lines: list[str], parsed: Sequence[Override], foreign: list[str]) -> str:
    """Say which choice of a job asks for what only a whole multirun can have."""
    swept = [o.get_key_element() for o in parsed if o.is_sweep_override()]
    groups = {name for name in swept if name in CHOSEN or "/" in name}
    chosen = [line for line in lines if line.split("=")[0] in groups]
    choice, parts = " ".join(chosen), ", ".join(f"hydra.{name}" for name in foreign)
    return (
        f"{choice}: sets {parts} for a whole multirun, so it cannot be one job of several: give it a "
        f"command of its own (fedexp {choice})"
    )
