"""What a sweeper that learns may choose: options with ranges, checked before anything starts.

A dimension is given on the command line in Hydra's grammar (``interval``, ``range``, ``choice``), or
declared where the option is: ``ranged(0.01, gt=0, tuned=Span(0.001, 0.3, log=True))``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.types import (
    ChoiceSweep,
    IntervalSweep,
    Override,
    RangeSweep,
    Transformer,
)

from fedexp.config.schema import Config
from fedexp.core.options import ConfigError, Span

Value = str | int | float | bool | None

TUNED_PARTS = ("training", "model", "strategy")
"""Whose declared ranges are tuned, the options that strategies share first."""

NOT_TUNED = ("seed", "objective", "mode")
"""What every trial has in common, or none could be compared with another."""


@dataclass(frozen=True)
class Dimension:
    """An option that is chosen anew for every trial.

    Attributes:
        option: Its path, such as ``training.learning_rate``, or a group.
        told: The override that says so.
        choices: Its values, where they are listed; else it lies between ``low`` and ``high``.
        low: The smallest value, included.
        high: The largest value, included.
        log: Whether every order of magnitude counts as much as any other.
        step: How far apart values lie; None for any number between.
        whole: Whether only whole numbers are tried.
    """

    option: str
    told: str
    choices: tuple[Value, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    whole: bool = False

    @property
    def ends(self) -> tuple[Value, ...]:
        """The values that all others lie between, or all of them."""
        return self.choices or (_whole(self.low), _whole(self.high))

    def __str__(self) -> str:
        """Say what is tried."""
        if self.choices:
            return f"{self.option} among {', '.join(map(shown, self.choices))}"
        kind = " (log)" if self.log else ""
        step = "" if self.step is None else f" in steps of {self.step:g}"
        return f"{self.option} from {self.low:g} to {self.high:g}{step}{kind}"


def assigned(option: str, value: Value) -> str:
    """Return the override that gives an option a value."""
    return f"{option}={shown(value)}"


def shown(value: Value) -> str:
    """Write a value as an override has it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return value if isinstance(value, str) else repr(value)


def own_space(config: Config) -> Iterator[Dimension]:
    """Yield the dimensions that are declared where options are: those of all strategies, then its own."""
    for part in TUNED_PARTS:
        page = getattr(config, part)
        for item in dataclasses.fields(page):
            span = item.metadata.get("tuned")
            if span is not None:
                yield _declared(f"{part}.{item.name}", span)


def space(
    swept: Sequence[Override],
    fixed: Sequence[Override],
    compose: Callable[[Sequence[str]], Config],
    *,
    own: bool,
) -> list[Dimension]:
    """Return what a study chooses.

    Args:
        swept: Overrides with several values; a later one replaces an earlier one of the same option.
        fixed: Those with one value; what they set is not chosen.
        compose: Makes a checked configuration of overrides, or raises ConfigError.
        own: Whether to add what the chosen strategy declares.

    Raises:
        ConfigError: A line for every option that does not exist, range outside the option's own, and
            choice that is not known.
    """
    lines = [str(item.input_line) for item in fixed]
    set_once = {_key(item) for item in fixed}
    found, errors = {}, []
    for item in swept:
        if _key(item) not in set_once:
            try:
                found[_key(item)] = _of_override(item)
            except ConfigError as error:
                errors += error.errors
    if errors:
        raise ConfigError(errors)
    if own:
        found = {**_declared_by(compose(lines), found, set_once), **found}
    if not found:
        raise ConfigError(
            [
                "there is nothing to choose: give an option a range, as in "
                "'training.learning_rate=tag(log,interval(0.003,0.3))'; the ranges that a strategy "
                "declares are those of experiment=tune, where the options are not set"
            ]
        )
    return _checked(list(found.values()), lines, compose)


def _declared_by(
    config: Config, given: dict[str, Dimension], set_once: set[str]
) -> dict[str, Dimension]:
    if "strategy" in given:
        several = ",".join(map(shown, given["strategy"].choices))
        raise ConfigError(
            [
                f"{given['strategy'].told}: every strategy has options and ranges of its own: "
                f"fedexp tune strategy={several} tunes one after the other and compares them"
            ]
        )
    return {item.option: item for item in own_space(config) if item.option not in set_once}


def _checked(
    dimensions: list[Dimension], lines: list[str], compose: Callable[[Sequence[str]], Config]
) -> list[Dimension]:
    """Compose every end of every range, the other options at their first value."""
    first = {item.option: assigned(item.option, item.ends[0]) for item in dimensions}
    errors: list[str] = []

    def tried(chosen: dict[str, str]) -> Config | None:
        try:
            return compose([*lines, *chosen.values()])
        except ConfigError as error:
            told = [_told_of(line, dimensions) for line in error.errors]
            errors.extend(line for line in told if line not in errors)
            return None

    config = tried(first)
    for item in dimensions:
        for value in item.ends[1:]:
            tried({**first, item.option: assigned(item.option, value)})
    if errors or config is None:
        raise ConfigError(errors)
    return [
        dataclasses.replace(item, whole=not item.choices and _takes_whole(config, item))
        for item in dimensions
    ]


def _told_of(line: str, dimensions: Sequence[Dimension]) -> str:
    """Name the range that an error comes from."""
    for item in dimensions:
        if line.startswith((f"{item.option} ", f"{item.option}:", f"{item.option}=")):
            return f"{item.told}: {line}"
    return line


def _takes_whole(config: Config, item: Dimension) -> bool:
    """Say whether an option takes whole numbers and no others."""
    node: Any = config
    *above, last = item.option.split(".")
    for name in above:
        node = getattr(node, name) if dataclasses.is_dataclass(node) else node[name]
    if not dataclasses.is_dataclass(node):
        return isinstance(item.low, int) and isinstance(item.high, int)
    kind = next(str(entry.type) for entry in dataclasses.fields(node) if entry.name == last)
    return "int" in kind and "float" not in kind


def _of_override(override: Override) -> Dimension:
    """Read what Hydra's grammar says.

    Raises:
        ConfigError: If it is no range that a study can choose from.
    """
    option, told, value = _key(override), str(override.input_line), override.value()
    if option in NOT_TUNED or option.startswith("hydra"):
        hint = "; fedexp tune reruns the best on fresh seeds" if option == "seed" else ""
        raise ConfigError([f"{told}: all trials of a study have the same {option}{hint}"])
    if isinstance(value, IntervalSweep):
        low, high = value.start, value.end
        assert low is not None
        assert high is not None
        return _between(option, told, low, high, log="log" in value.tags)
    if isinstance(value, RangeSweep):
        told_values: list[Any] = list(override.sweep_iterator(transformer=Transformer.identity))
        numbers = sorted(told_values)
        if len(numbers) < 2:
            raise ConfigError([f"{told}: a range needs two values at least"])
        step = abs(value.step)
        return _between(option, told, numbers[0], numbers[-1], step=step)
    if isinstance(value, ChoiceSweep):
        choices: list[Any] = list(override.sweep_iterator(transformer=Transformer.encode))
        return Dimension(option, told, choices=tuple(dict.fromkeys(choices)))
    raise ConfigError([f"{told}: a study needs the values one by one, as in {option}=a,b"])


def _between(
    option: str, told: str, low: float, high: float, *, log: bool = False, step: float | None = None
) -> Dimension:
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError([f"{told}: a range goes from a number to a larger one"])
    if log and low <= 0:
        raise ConfigError([f"{told}: a logarithmic range begins above 0"])
    return Dimension(option, told, low=low, high=high, log=log, step=step)


def _declared(option: str, span: Span) -> Dimension:
    inner = f"interval({span.low!r},{span.high!r})"
    told = f"{option}={f'tag(log,{inner})' if span.log else inner}"
    return _between(option, told, span.low, span.high, log=span.log)


def _key(override: Override) -> str:
    return str(override.get_key_element()).lstrip("+")


def _whole(number: float) -> float:
    """Write 1.0 as 1, which options of both kinds take."""
    return int(number) if float(number).is_integer() and abs(number) < 1e15 else number
