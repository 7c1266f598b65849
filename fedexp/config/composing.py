"""What Hydra composes of overrides, checked: a line for each mistake names the option and the remedy."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from hydra import compose
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException, ValidationError
from yaml import YAMLError

from fedexp.config import sweeper
from fedexp.config.clients import ClientsConfig
from fedexp.config.explain import cause, explain, one_line, unknown_option
from fedexp.config.folders import register_resolvers
from fedexp.config.hydra_internals import child_of, writable_schema
from fedexp.config.schema import GROUPS, Config
from fedexp.config.source import CONFIG_NAME, Source
from fedexp.config.targets import target_errors
from fedexp.config.validation import validate
from fedexp.core.options import ConfigError, FedexpError

# Of OmegaConf, where it is to fill an option that is None.
_BUGS = (AttributeError, AssertionError, TypeError)
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
        _put_in_place(node, "")
        config = OmegaConf.to_object(node)
        assert isinstance(config, Config)
        errors += validate(config)
    except OmegaConfBaseException as error:
        raise ConfigError([*errors, one_line(error)]) from error
    except FedexpError as error:  # data that were read to know what they are
        raise ConfigError([*errors, *str(error).splitlines()]) from error
    if errors:
        raise ConfigError(errors)
    return config


def _put_in_place(node: DictConfig | ListConfig, prefix: str) -> None:
    """Replace every ``${...}`` by what it points to, as if that were written there.

    OmegaConf looks at what is assigned to an option, but not at what a list's ``${...}`` becomes.

    Raises:
        ConfigError: If that is no value for the option.
    """
    listed = isinstance(node, ListConfig)
    for key in range(len(node)) if listed else list(node):
        name = f"{prefix}[{key}]" if listed else f"{prefix}.{key}".lstrip(".")
        if OmegaConf.is_missing(node, key):
            continue
        if OmegaConf.is_interpolation(node, key):
            value = node[key]
            if OmegaConf.is_config(value):
                value = OmegaConf.to_container(value, resolve=True)
            try:
                node[key] = value
            except ValidationError as error:
                wrong = f"{name} points to {value!r}, which is no value for it"
                raise ConfigError([wrong]) from error
        elif OmegaConf.is_config(node[key]):
            _put_in_place(node[key], name)


def _take_strangers(node: DictConfig, entry: type, prefix: str) -> Iterator[str]:
    """Remove and report what `+key=value` added: it gets past the schema, which would drop it."""
    known = {item.name for item in dataclasses.fields(entry)}
    given = set(map(str, node))
    for key in sorted(given - known):
        del node[key]  # pop would look at what it holds, which may be ${nope}
        yield unknown_option(f"{prefix}{key}", known)
    for key in sorted(known & given):
        child = child_of(node, key)
        child_type = None if child is None else OmegaConf.get_type(child)
        if child is not None and child_type is not None and dataclasses.is_dataclass(child_type):
            with open_dict(child):
                yield from _take_strangers(child, child_type, f"{prefix}{key}.")


def parse_all(lines: Sequence[str]) -> tuple[list[Override], list[str]]:
    """Return overrides as Hydra reads them, and a line for each that it cannot read."""
    parsed, errors = [], []
    for line in lines:
        try:
            parsed.append(parse(line))
        except ConfigError as error:
            errors += error.errors
    return parsed, errors


def parse(line: str) -> Override:
    """Return an override as Hydra reads it.

    Raises:
        ConfigError: If it cannot, or nothing of this kind can be overridden.
    """
    loader = GlobalHydra.instance().config_loader()
    try:
        override = OverridesParser.create(config_loader=loader).parse_override(line)
    except HydraException as error:
        raise ConfigError([f"{line}: not of the form option=value or group=choice"]) from error
    override.config_loader = loader  # glob(*) asks it for the choices of a group
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


def lines_of(overrides: Sequence[Override]) -> list[str]:
    """Return overrides as they stand on a command line."""
    return [str(o.input_line) for o in overrides]


def composed(begin: Source, lines: list[str]) -> DictConfig:
    """Return what overrides compose to, Hydra's own part included.

    Raises:
        ConfigError: With one line for every mistake that Hydra finds.
    """
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
