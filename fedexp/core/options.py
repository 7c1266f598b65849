"""How options are declared: their ranges, and the errors that bad ones raise."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Protocol

AUTO = "auto"


class ConfigError(Exception):
    """A configuration that cannot be run, with one line for every mistake in it."""

    def __init__(self, errors: list[str]) -> None:
        self.errors = [_one_line(error) for error in errors]
        super().__init__("\n".join(self.errors))


def _one_line(text: str) -> str:
    """Write what a terminal would not print, such as a line break in a value, as Python writes it."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


class FedexpError(Exception):
    """A run that cannot go on; the message says what to do about it."""


class DivergedError(FedexpError):
    """A run whose model is of no use any more: its weights overflowed, or nobody can train it."""


class Plan(Protocol):
    """The whole configuration, as the rules between options see it; nobody writes to it."""

    @property
    def dataset(self) -> Any:
        """The dataset's page."""

    @property
    def partition(self) -> Any:
        """The partition's page."""

    @property
    def model(self) -> Any:
        """The model's page."""

    @property
    def strategy(self) -> Any:
        """The strategy's page."""

    @property
    def clients(self) -> Any:
        """How many clients there are, and what goes wrong with them."""

    @property
    def training(self) -> Any:
        """What a client does in a round."""


@dataclass(frozen=True)
class Span:
    """Where tuning looks for an option's best value.

    Attributes:
        low: The smallest value that is tried.
        high: The largest one.
        log: Whether every order of magnitude counts as much as any other, as for a learning rate.
    """

    low: float
    high: float
    log: bool = False


def ranged(
    default: Any,
    *,
    gt: float | None = None,
    ge: float | None = None,
    lt: float | None = None,
    le: float | None = None,
    tuned: Span | None = None,
) -> Any:
    """Declare a dataclass field whose number must lie in a range (``None`` values are exempt).

    Args:
        default: The value that it has unless it is set.
        gt: It must be larger.
        ge: It must be as large or larger.
        lt: It must be smaller.
        le: It must be as small or smaller.
        tuned: Where ``fedexp tune`` looks for its best value; None leaves the option as it is.
    """
    bounds = [(">", gt), (">=", ge), ("<", lt), ("<=", le)]
    metadata = {"bounds": [b for b in bounds if b[1] is not None], "tuned": tuned}
    return field(default=default, metadata=metadata)


def one_of(default: str, *choices: str) -> Any:
    """Declare a dataclass field that must be one of a few words."""
    return field(default=default, metadata={"choices": choices})


def range_errors(node: Any, prefix: str) -> Iterator[str]:
    """Yield a line for every option that is not in its range, or none of its words.

    Args:
        node: A dataclass of options; those of dataclasses in it are looked at, too.
        prefix: What stands before each name, such as ``training.``.
    """
    for item in fields(node):
        value, path = getattr(node, item.name), f"{prefix}{item.name}"
        if is_dataclass(value):
            yield from range_errors(value, f"{path}.")
            continue
        choices = item.metadata.get("choices", ())
        if choices and value not in choices:
            yield f"{path} must be one of {', '.join(choices)}, got {value!r}"
        if isinstance(value, str):
            continue  # a word beside numbers, such as batch_size=full, is a matter of relation rules
        if isinstance(value, float) and not math.isfinite(value):
            yield f"{path} must be a finite number, got {value}"
        elif value is not None:
            for sign, bound in item.metadata.get("bounds", ()):
                if not _HOLDS[sign](value, bound):
                    yield f"{path} must be {sign} {bound}, got {value}"


_HOLDS = {
    ">": lambda value, bound: value > bound,
    ">=": lambda value, bound: value >= bound,
    "<": lambda value, bound: value < bound,
    "<=": lambda value, bound: value <= bound,
}
