"""What options and choices mean, read off the classes that declare them.

An option is described by the string below it:

    alpha: float = ranged(0.5, gt=0)
    \"\"\"Concentration of the Dirichlet distribution; the smaller, the more clients differ.\"\"\"

``fedexp help`` and ``docs/reference/`` are made of this, for code from outside as for fedexp's own.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import linecache
import re
import sys
from collections.abc import Collection
from functools import cache
from itertools import pairwise
from typing import Any

from fedexp.core.registry import Registry

_NUMBERS = {"int": "whole number", "float": "number"}
_TYPES = {
    **{"bool": "true or false", "str": "text", "None": "null"},
    **{"list[str]": "list of words", "list[int]": "list of whole numbers"},
    **{"list[list[int]]": "lists of whole numbers", "dict[str, Any]": "options and their values"},
}


@dataclasses.dataclass(frozen=True)
class Option:
    """An option.

    Attributes:
        name: As the command line has it.
        default: Its value where nobody sets it, as the command line has it.
        values: What it may be, with its range.
        meaning: What it does, and its unit; empty where its class does not say.
    """

    name: str
    default: str
    values: str
    meaning: str


def options(page: type, prefix: str = "", leave_out: Collection[str] = ()) -> list[Option]:
    """Return the options of a dataclass in the order of their declaration.

    Args:
        page: The class; one that is no dataclass has none. Fields that hold options of their own are left
            out.
        prefix: What stands before each name, such as ``training.``.
        leave_out: Names of fields that are no options.
    """
    if not dataclasses.is_dataclass(page):
        return []
    instance, told, found = page(), meanings(page), []
    for item in dataclasses.fields(page):
        value = getattr(instance, item.name)
        if not dataclasses.is_dataclass(value) and item.name not in leave_out:
            meaning = told.get(item.name, "")
            found.append(Option(f"{prefix}{item.name}", written(value), _values(item), meaning))
    return found


def meanings(page: type) -> dict[str, str]:
    """Return what stands below the options of a class and of those it inherits from, in one line each."""
    found: dict[str, str] = {}
    for kind in reversed(page.__mro__):
        for option, text in pairwise(_body(kind)):
            if isinstance(option, ast.AnnAssign) and isinstance(option.target, ast.Name):
                found.pop(option.target.id, None)  # what is declared anew may mean something else
                if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                    found[option.target.id] = " ".join(str(text.value.value).split())
    return found


def summary(registry: Registry[Any], name: str) -> str:
    """Return a line about a choice: its class's first, or its file's where it has the file to itself."""
    page = registry.get(name)
    neighbours = [p for p in registry.pages().values() if p.__module__ == page.__module__]
    module = sys.modules.get(page.__module__)
    alone = registry.is_built_in(name) and len(neighbours) == 1
    text = (module.__doc__ if alone and module else page.__doc__) or ""
    return plain(inspect.cleandoc(text).partition("\n")[0])


def description(page: type) -> str:
    """Return a class's docstring, as Markdown, without its list of attributes: facts for code."""
    text = "" if _is_made(page) else inspect.cleandoc(page.__doc__ or "")
    text = text.partition("Attributes:\n")[0].rstrip().replace("``", "`")
    return re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text)


def plain(text: str) -> str:
    """Return a docstring's text as a terminal shows it: without marks."""
    return re.sub(r":\w+:`~?([^`]+)`", r"\1", text).replace("`", "")


def written(value: Any) -> str:
    """Write a value as the command line has it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(map(written, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{written(told)}' for key, told in value.items())}}}"
    return str(value)


def _values(item: dataclasses.Field[Any]) -> str:
    """Say what an option may be."""
    if item.metadata.get("choices"):
        return ", ".join(item.metadata["choices"])
    bounds = " and ".join(f"{sign} {bound:g}" for sign, bound in item.metadata.get("bounds", ()))
    kind = item.type if isinstance(item.type, str) else _name_of(item.type)
    words = [part.strip() for part in kind.split("|")]
    several = {"str": "a word"} if set(words) & set(_NUMBERS) else {}
    return " or ".join(
        f"{_NUMBERS[word]} {bounds}".rstrip()
        if word in _NUMBERS
        else several.get(word, _TYPES.get(word, word))
        for word in words
    )


def _name_of(kind: Any) -> str:
    """Return a type as it is written; in a file that does not postpone annotations it is an object."""
    return kind.__name__ if isinstance(kind, type) and not hasattr(kind, "__args__") else str(kind)


def _is_made(page: type) -> bool:
    """Say whether a docstring is none: dataclasses write one where there is none."""
    return (page.__doc__ or "").startswith(f"{page.__name__}(")


def _body(kind: type) -> list[ast.stmt]:
    """Return the statements of a class; none where its source cannot be had, as in a console."""
    try:
        file = inspect.getsourcefile(kind)
    except TypeError:  # of a built-in class
        return []
    nodes: list[ast.stmt] = list(_statements(file)) if file else []
    for name in kind.__qualname__.split("."):
        inner = next(
            (node for node in nodes if isinstance(node, ast.ClassDef) and node.name == name), None
        )
        nodes = inner.body if inner else []
    return nodes


@cache
def _statements(file: str) -> tuple[ast.stmt, ...]:
    try:
        return tuple(ast.parse("".join(linecache.getlines(file))).body)
    except SyntaxError:  # changed since it was imported
        return ()
