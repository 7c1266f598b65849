"""From command-line overrides to checked configurations, through Hydra.

Everything that can be wrong with a command is found here, before Hydra makes a folder and before
torch or ray is imported: each mistake becomes one line that names the option and the remedy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from fedexp.config import sweeper
from fedexp.config.clients import ClientsConfig
from fedexp.config.explain import cause, explain, one_line, unknown_option
from fedexp.config.folders import folder_errors, folder_of, pinned, register_resolvers, sweep_of
from fedexp.config.hydra_internals import (
    child_of,
    is_basic_sweeper,
    split_into_jobs,
    writable_schema,
)
from fedexp.config.hydra_memory import composing_once
from fedexp.config.schema import GROUPS, Config
from fedexp.config.source import CHOSEN, CONFIG_NAME, Source, conf_dir, source, without_plus
from fedexp.config.studies import StudyPlan
from fedexp.config.targets import target_errors
from fedexp.config.validation import validate
from fedexp.core.options import ConfigError

_BUGS = (
    AttributeError,
    AssertionError,
    TypeError,
)  # of OmegaConf, where it is to fill what is None
_MISTAKES = (HydraException, OmegaConfBaseException, ValueError, YAMLError, *_BUGS)

_registered: list[object] = []
"""Where the schema was stored, and of which pages: it is made once, because that takes its time."""


def register() -> None:
    """Give Hydra the schema, the choices from outside, and the resolver of the run folders' names."""
    register_resolvers()
    sweeper.register()
    pages = {group: registry.pages() for group, registry in GROUPS.items()}
    store = ConfigStore.instance()
    if _registered == [store, pages]:
        return
    _registered[:] = [store, pages]
    root = writable_schema(Config)
    for group, registry in GROUPS.items():
        root[group] = "???"
        for name, page in registry.pages().items():
            schema = writable_schema(page)
            store.store(name=f"schema_{group}_{name}", node=schema)
            if not registry.is_built_in(name):  # it has no YAML of ours, and needs none
                store.store(group=group, name=name, node=schema)
    root["clients"] = "???"
    store.store(name="schema_clients_clients", node=writable_schema(ClientsConfig))
    store.store(name="base_config", node=root)


def from_hydra(node: DictConfig) -> Config:
    """Turn a composed configuration into a checked :class:`Config`.

    Raises:
        ConfigError: With one line for every mistake.
    """
    if OmegaConf.get_type(node) is not Config:
        raise ConfigError(
            ["the configuration is not built on fedexp's own: name config in its list of defaults"]
        )
    node = node.copy()
    with open_dict(node):
        node.pop("hydra", None)
        errors = list(_take_strangers(node, Config, ""))
    try:
        config = OmegaConf.to_object(node)
    except OmegaConfBaseException as error:
        raise ConfigError([*errors, one_line(error)]) from error
    assert isinstance(config, Config)
    errors += validate(config)
    if errors:
        raise ConfigError(errors)
    return config


def _take_strangers(node: DictConfig, entry: type, prefix: str) -> Iterator[str]:
    """Remove and report what `+key=value` added: it gets past the schema, which would drop it."""
    known = {item.name for item in dataclasses.fields(entry)}
    given = set(map(str, node))
    for key in sorted(given - known):
        node.pop(key)
        yield unknown_option(f"{prefix}{key}", known)
    for key in sorted(known & given):
        child = child_of(node, key)
        child_type = None if child is None else OmegaConf.get_type(child)
        if child is not None and child_type is not None and dataclasses.is_dataclass(child_type):
            with open_dict(child):
                yield from _take_strangers(child, child_type, f"{prefix}{key}.")


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
    """

    overrides: list[str]
    config: Config
    chosen_later: bool = False
    study: StudyPlan | None = None
    folder: Path | None = None
    sweep: Path | None = None


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
        parsed, errors = _parse_all(without_plus(overrides))
        errors += [f"{o.input_line}: one value, please" for o in parsed if o.is_sweep_override()]
        if errors:
            raise ConfigError(errors)
        node = _compose(begin, _lines(parsed))
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
) -> list[Job]:
    """Compose and check every job of a command.

    Args:
        overrides: What stands on the command line.
        multirun: Whether ``-m`` was given; an experiment may also ask for a multirun by itself.
        config_dir: A further folder of YAML files (Hydra's ``--config-dir``).
        config_name: The file to begin with, as :func:`fedexp.config.source.source` finds it.
        config_path: Another such folder.

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
        parsed, errors = _parse_all(without_plus(overrides))
        swept = [o for o in parsed if o.is_sweep_override()]
        jobs: list[Job] = []
        try:
            base = _compose(begin, _lines([o for o in parsed if o not in swept]))
            mode = OmegaConf.select(base, "hydra.mode")
            if multirun or (mode is not None and mode.name == "MULTIRUN"):
                jobs = _check_jobs(base, parsed, begin)
            else:
                errors += [f"{o.input_line}: several values need a multirun (-m)" for o in swept]
                jobs = [Job(_lines(parsed), from_hydra(base), folder=folder_of(base, None))]
                errors += folder_errors([jobs[0].folder], multirun=False, configs=[jobs[0].config])
        except ConfigError as error:
            errors += error.errors
    if errors:
        raise ConfigError(errors)
    return jobs


def _check_jobs(base: DictConfig, parsed: list[Override], begin: Source) -> list[Job]:
    sweep = sweep_of(base)
    if not is_basic_sweeper(base.hydra):
        study = None
        if sweeper.is_study(base.hydra):
            study = sweeper.study(
                base.hydra, parsed, _parse, lambda lines: from_hydra(_compose(begin, list(lines)))
            )
        config = from_hydra(base) if study is None else study.config
        return [Job(_lines(parsed), config, chosen_later=True, study=study, sweep=sweep)]
    whole = _of_multirun(base)
    params = OmegaConf.select(base, "hydra.sweeper.params") or {}
    swept = [_parse(f"{key}={value}") for key, value in params.items()]
    jobs, errors = [], []
    for number, lines in enumerate(split_into_jobs([*swept, *parsed])):
        try:
            node = _compose(begin, lines)
            if foreign := [
                name for name, part in _of_multirun(node).items() if part != whole[name]
            ]:
                raise ConfigError([_needs_a_command(lines, [*swept, *parsed], foreign)])
            if elsewhere := pinned(node, sweep):
                raise ConfigError(elsewhere)
            folder = folder_of(node, number)
            jobs.append(Job(lines, from_hydra(node), folder=folder, sweep=sweep))
        except ConfigError as error:
            errors += [line for line in error.errors if line not in errors]
    if not errors:  # else some jobs are absent, and the others have other numbers
        configs = [job.config for job in jobs]
        errors = folder_errors([job.folder for job in jobs], multirun=True, configs=configs)
    if errors:
        raise ConfigError(errors)
    return jobs


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


def _parse_all(lines: Sequence[str]) -> tuple[list[Override], list[str]]:
    parsed, errors = [], []
    for line in lines:
        try:
            parsed.append(_parse(line))
        except ConfigError as error:
            errors += error.errors
    return parsed, errors


def _parse(line: str) -> Override:
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    try:
        override = parser.parse_override(line)
    except HydraException as error:
        raise ConfigError([f"{line}: not of the form option=value or group=choice"]) from error
    group, value = override.key_or_group, override.value()
    if override.is_delete() and not group.startswith("hydra"):
        raise ConfigError([f"{group} cannot be removed ({line}): every option has a value"])
    if (
        group in (*GROUPS, "clients")
        and not override.is_sweep_override()
        and not isinstance(value, str)
    ):
        choices = ", ".join(_choices(group))
        hint = f"; the count is clients.num={value}" if group == "clients" else ""
        raise ConfigError([f"{line}: a group is chosen by name ({choices}){hint}"])
    return override


def _choices(group: str) -> list[str]:
    return list(GlobalHydra.instance().config_loader().get_group_options(group))


def _lines(overrides: Sequence[Override]) -> list[str]:
    return [str(o.input_line) for o in overrides]


def _compose(begin: Source, lines: list[str]) -> DictConfig:
    try:
        node = compose(begin.name, overrides=lines, return_hydra_config=True)
    except _MISTAKES as error:
        found = _all_errors(begin, lines) or [one_line(error)]
        raise ConfigError([begin.told(line) for line in found]) from error
    if errors := target_errors(node, begin):
        raise ConfigError(errors)
    return node


def _all_errors(begin: Source, lines: list[str]) -> list[str]:
    """Hydra stops at the first bad override; try each on top of the good choices to name them all."""
    try:
        compose(begin.name, return_hydra_config=True)
    except _MISTAKES as error:
        return [f"{begin.file or CONFIG_NAME}: {cause(error)}"]
    errors: list[str] = []
    good: list[str] = []
    # Choices of groups first: which options exist depends on them.
    for line in sorted(lines, key=lambda item: "." in item.split("=")[0]):
        try:
            compose(begin.name, overrides=[*good, line], return_hydra_config=True)
            good.append(line)
        except _MISTAKES as error:
            errors.append(explain(line, error))
    try:
        from_hydra(compose(begin.name, overrides=good))
    except ConfigError as error:
        errors += error.errors
    return errors
