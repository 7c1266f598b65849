"""Where a configuration comes from: fedexp's own YAML tree, and files of a user's own beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from fedexp.config.explain import one_line
from fedexp.config.plugins import conf_folders
from fedexp.config.schema import GROUPS
from fedexp.core.options import ConfigError

CONFIG_NAME = "config"
SLOTS = ("experiment", "debug")
"""Groups of presets that change several others; empty unless one is chosen."""

CHOSEN = (*GROUPS, "clients", "tracking", *SLOTS)
"""All groups of presets."""

_OWN = "configuration_of_the_command"


def conf_dir() -> Path:
    """Return the YAML tree: inside the package when installed from a wheel, else the checkout's."""
    packaged = Path(__file__).parents[1] / "conf"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "conf"


def without_plus(overrides: Sequence[str]) -> list[str]:
    """Write ``+experiment=lesson`` as ``experiment=lesson``: the slot is there, as it once was not."""
    slots = tuple(f"+{slot}=" for slot in SLOTS)
    return [line[1:] if line.startswith(slots) else line for line in overrides]


@dataclass(frozen=True)
class Source:
    """What overrides are applied to.

    Attributes:
        folders: Searched beside fedexp's own, in this order.
        file: A file of the user's own to begin with; None is fedexp's.
        name: What Hydra calls the configuration that it begins with.
    """

    folders: tuple[Path, ...] = ()
    file: Path | None = None
    name: str = CONFIG_NAME

    def register(self) -> None:
        """Have Hydra search the folders, and know the file.

        Raises:
            ConfigError: If the file cannot be read.
        """
        Plugins.instance().register(SearchedFolders)
        SearchedFolders.folders = self.folders
        if self.file is not None:
            ConfigStore.instance().store(name=_OWN, node=_completed(self.file))

    def told(self, message: str) -> str:
        """Name the file in a message of Hydra's."""
        return message if self.file is None else message.replace(_OWN, str(self.file))


def source(
    config_dir: str | None = None, config_name: str | None = None, config_path: str | None = None
) -> Source:
    """Return what a command's overrides are applied to.

    Args:
        config_dir: A further folder of YAML files.
        config_name: The file to begin with, in one of the folders given: one that a run saved, a plain
            list of values, or one with a ``defaults`` list that names ``config``.
        config_path: Another such folder; its ``config.yaml`` is begun with, unless ``config_name`` is
            given.

    Raises:
        ConfigError: If a folder or a file is not there.
    """
    given = {"--config-path": config_path, "--config-dir": config_dir}
    folders = {option: Path(told).absolute() for option, told in given.items() if told is not None}
    errors = [
        f"{option} {given[option]}: no such folder"
        for option, folder in folders.items()
        if not folder.is_dir()
    ]
    if errors:
        raise ConfigError(errors)
    places = tuple(folders.values())
    if config_name is None and config_path is None:
        return Source(places)
    stem = (config_name or CONFIG_NAME).removesuffix(".yaml").removesuffix(".yml")
    for place in (*places, *conf_folders(), *([] if places else [Path.cwd()])):
        for ending in (".yaml", ".yml"):
            if (place / f"{stem}{ending}").is_file():
                return Source(places, place / f"{stem}{ending}", _OWN)
    if stem == CONFIG_NAME and config_path is None:
        return Source(places)
    where = ", ".join(str(told) for told in given.values() if told is not None) or "this folder"
    raise ConfigError([f"--config-name {stem}: there is no {stem}.yaml in {where}"])


def _completed(file: Path) -> DictConfig:
    """Read a configuration; one without a list of defaults is put on top of fedexp's own.

    That is how a run's config.yaml is read: it names what was chosen in each group, with all values.
    """
    try:
        content = OmegaConf.load(file)
    except (OSError, OmegaConfBaseException, YAMLError, UnicodeDecodeError) as error:
        raise ConfigError([f"{file} cannot be read: {one_line(error)}"]) from error
    if not isinstance(content, DictConfig):
        raise ConfigError([f"{file}: a configuration is a list of option: value"])
    if "defaults" not in content:
        values: Any = OmegaConf.to_container(content)
        chosen = [{f"override {group}": name} for group, name in _choices(values)]
        content = OmegaConf.create({"defaults": [CONFIG_NAME, "_self_", *chosen], **values})
    return content


def _choices(values: dict[Any, Any]) -> list[tuple[str, str]]:
    """Return what a configuration chooses in each group; where only a name says so, take it out."""
    found = []
    for group in CHOSEN:
        value = values.get(group)
        if isinstance(value, str):
            found.append((group, str(values.pop(group))))
        elif group in GROUPS and isinstance(value, dict) and isinstance(value.get("name"), str):
            found.append((group, value["name"]))
    return found


class SearchedFolders(SearchPathPlugin):
    """Hydra plug-in: search the folders that a command names or packages bring, also for ``--help``."""

    folders: ClassVar[tuple[Path, ...]] = ()

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Add the folders."""
        for folder in self.folders:
            search_path.append("command-line", f"file://{folder}")
        for folder in conf_folders():
            search_path.append("fedexp.plugins", f"file://{folder}")
