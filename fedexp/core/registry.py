"""Registries: the choices of a group, each owned by one file.

A choice is a class, registered by a decorator where it is written:

    @strategies.register
    @dataclass(frozen=True)
    class Mine(Strategy):
        name: str = "mine"

Built-in pages and code from outside go in by the same door. What a user names in a configuration is
looked up here and nowhere else; no value of a configuration names code to import.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re
import sys
import traceback
from pathlib import Path
from typing import Generic, TypeVar

from fedexp.core.options import FedexpError

_NAME = re.compile(r"[a-z][a-z0-9_]*")

Base = TypeVar("Base")
Page = TypeVar("Page")


class PluginError(FedexpError):
    """Code from outside that cannot be used; the message names the file and the remedy."""


class Registry(Generic[Base]):
    """The choices of one group, by name.

    Args:
        group: What the group is called on the command line, such as ``strategy``.
        base: The class that every choice inherits from.
    """

    def __init__(self, group: str, base: type[Base]) -> None:
        self.group, self.base = group, base
        self._pages: dict[str, type[Base]] = {}

    def register(self, page: type[Page]) -> type[Page]:
        """Add a choice; a class decorator.

        Args:
            page: A subclass of the group's base. What has options is a frozen dataclass, in which every
                field has a default. The default of ``name`` is what the command line calls it.

        Returns:
            The class itself.

        Raises:
            PluginError: If the class is not of that kind, or another file owns the name.
            SystemExit: In place of it, after a line on stderr, where a script registers the class.
        """
        try:
            self._check(page)
        except PluginError as error:
            if not _is_script(page):
                raise
            print(f"fedexp: {error}", file=sys.stderr)
            sys.exit(
                2
            )  # as a command that cannot be used: the reader wrote it, a traceback adds nothing
        self._pages[page.name] = page  # type: ignore[attr-defined, assignment]  # _check has looked
        return page

    def _check(self, page: type) -> None:
        for problem in self._problems(page):
            raise PluginError(f"{_where(page)}: {page.__name__} {problem}")
        name: str = page.name  # type: ignore[attr-defined]
        owner = self._pages.get(name)
        # A cell of a notebook that is run again, or a script in another process, defines it again.
        if owner is not None and _identity(owner) != _identity(page):
            raise PluginError(
                f"{self.group}={name} has two owners, {_where(owner)} and {_where(page)}: "
                "rename one of them"
            )

    def choices(self) -> list[str]:
        """Return all names, built-in ones first, each part in alphabetical order."""
        return sorted(self._pages, key=lambda name: (not self.is_built_in(name), name))

    def get(self, name: str) -> type[Base]:
        """Return the class of a name.

        Raises:
            FedexpError: If there is none, with the names that there are.
        """
        if name not in self._pages:
            raise FedexpError(
                f"{self.group} must be one of {', '.join(self.choices())}, got {name!r}"
            )
        return self._pages[name]

    def pages(self) -> dict[str, type[Base]]:
        """Return every choice: name -> class."""
        return {name: self._pages[name] for name in self.choices()}

    def is_built_in(self, name: str) -> bool:
        """Say whether a choice comes with fedexp."""
        return self._pages[name].__module__.startswith("fedexp.")

    def outside(self) -> list[type[Base]]:
        """Return the choices that do not come with fedexp."""
        return [page for name, page in self.pages().items() if not self.is_built_in(name)]

    def forget(self, name: str) -> None:
        """Take a choice away again, as tests do with their own."""
        del self._pages[name]

    def _problems(self, page: type) -> list[str]:
        if not (inspect.isclass(page) and issubclass(page, self.base)):
            return [f"must inherit from {self.base.__name__}"]
        if dataclasses.is_dataclass(self.base):
            if "__dataclass_params__" not in vars(page):
                return ["must be a dataclass: write @dataclass(frozen=True) below @register"]
            if not page.__dataclass_params__.frozen:  # type: ignore[attr-defined]
                return ["must be frozen: @dataclass(frozen=True)"]
            typed = vars(page).get("__annotations__", {})
            for item in dataclasses.fields(page):  # type: ignore[arg-type]
                if item.name in vars(page) and item.name not in typed:
                    return [
                        f"needs a type at its option {item.name}, as in {item.name}: {item.type}"
                    ]
                missing = dataclasses.MISSING
                if item.default is missing and item.default_factory is missing:
                    return [f"needs a default for its option {item.name}"]
        name = getattr(page, "name", None)
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            return [f"needs a name of small letters, digits and _, got {name!r}"]
        return []


def import_pages(package: str) -> None:
    """Import every module of a package, so that the choices in them are registered."""
    folder = importlib.import_module(package).__path__
    for module in pkgutil.iter_modules(folder):
        importlib.import_module(f"{package}.{module.name}")


def file_of(page: type) -> Path | None:
    """Return the file that a class was written in; None for one that was typed in."""
    module = sys.modules.get(page.__module__)
    path = getattr(module, "__file__", None)
    return Path(path) if path else None


def located(page: type, error: Exception) -> str:
    """Return in one line what a page's code raised, and where in its file."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    path, place = file_of(page), ""
    for frame in traceback.extract_tb(error.__traceback__):
        if path is not None and frame.filename == str(path):
            place = f" ({path}:{frame.lineno})"
    kind = "" if isinstance(error, FedexpError) else f"{type(error).__name__}: "
    return f"{kind}{reason}{place}"


def _identity(page: type) -> tuple[str, str]:
    # A class that went to another process by value says `__main__` there, too.
    return page.__module__, page.__qualname__


def _is_script(page: type) -> bool:
    """Say whether a class was written in the script that runs, not in a notebook or a console."""
    return page.__module__ == "__main__" and file_of(page) is not None and not hasattr(sys, "ps1")


def _where(page: type) -> str:
    return str(file_of(page) or page.__module__)
