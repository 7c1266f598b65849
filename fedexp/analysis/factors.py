"""What was varied: the options that tell runs apart, their values, and what rows are called by them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

import pandas as pd

from fedexp.analysis.repeats import NAME, changes_results
from fedexp.analysis.results import ISOLATED, Results

STRATEGY = "strategy"
"""What a row is called by, beside settings."""

ISOLATED_ROUNDS = "isolated_rounds"

MAX_NAMED = 10
"""Options that an error lists."""

# Of these groups, every run has all options.
_EVERY_RUN_HAS = ("clients", "training", "stop")
_CHOICE = ".name"


class Factors(NamedTuple):
    """The options that rows are told apart by.

    Attributes:
        keys: Their names as config.yaml has them; ``strategy`` for the strategy.
        follow: Options that vary, too, but follow from the choice of a group: each is named by that.
    """

    keys: list[str]
    follow: list[str]


def varied_settings(found: Results) -> list[str]:
    """Return the options that can change results, but for seed and strategy, in which runs differ.

    A strategy's own options count as different only between runs of that strategy.
    """
    strategies = found.runs.loc[found.ended, STRATEGY]
    kinds = found.runs.loc[found.ended, "kind"]
    settings = found.settings.loc[found.ended]
    varied = []
    for key in map(str, settings):
        if not changes_results(key):
            continue
        words = settings[key].map(repr)
        if _came_later(key):
            words = words[words != repr(math.nan)]
        if key == ISOLATED_ROUNDS:
            words = words[kinds == ISOLATED]
        owners = strategies if is_own(found, key) else pd.Series("", index=words.index)
        if (words.groupby(owners.loc[words.index]).nunique() > 1).any():
            varied.append(key)
    return [*varied, NAME] if _only_named_apart(found, varied) else varied


def _only_named_apart(found: Results, varied: Sequence[str]) -> bool:
    """Say whether runs that are the same but for their name were given several names."""
    runs, settings = found.runs.loc[found.ended], found.settings.loc[found.ended]
    if NAME not in settings:
        return False
    same = [runs[STRATEGY], runs["seed"], *(settings[key].map(repr) for key in varied)]
    return bool((settings[NAME].map(repr).groupby(same, dropna=False).nunique() > 1).any())


def _came_later(key: str) -> bool:
    """Say whether runs that lack an option are from before there was one, when all were as by default.

    Those of the choices come and go with the choice.
    """
    group, dot, _ = key.partition(".")
    return not key.startswith("clients.byzantine.") and (not dot or group in _EVERY_RUN_HAS)


def is_own(found: Results, key: str) -> bool:
    """Say whether an option belongs to one strategy and does not concern what it is compared with."""
    by_name = key in (ISOLATED_ROUNDS, NAME) or key.startswith("strategy.")
    return by_name or key in found.tuned


def factors(found: Results, varied: Sequence[str]) -> Factors:
    """Return what rows are told apart by: the strategy, and of what varies as little as it takes.

    An option that follows from the choice of groups (``dataset``, ``partition``, ``model``) is left out:
    whoever reads ``fashion_mnist`` need not read the presets' rounds, too. So is one of two options of a
    group that always change together, as the presets of ``clients=`` change them.
    """
    words = found.settings.loc[found.ended, list(varied)].map(repr)
    choices = [key for key in varied if key.endswith(_CHOICE)]
    keys, follow = [STRATEGY], []
    for key in [*choices, *(key for key in varied if key not in choices)]:
        others = [k for k in keys if k.partition(".")[0] == key.partition(".")[0] and "." in k]
        if (
            key not in choices
            and not is_own(found, key)
            and (
                _follows(words, key, choices)
                or any(_follows(words, key, [k]) and _follows(words, k, [key]) for k in others)
            )
        ):
            follow.append(key)
        else:
            keys.append(key)
    return Factors(keys, follow)


def _follows(words: pd.DataFrame, key: str, others: Sequence[str]) -> bool:
    """Say whether an option has one value wherever the others have the same ones."""
    return bool(others) and bool((words.groupby(list(others))[key].nunique() == 1).all())


def unnamed(found: Factors) -> list[str]:
    """Return the options that follow from the choice of another group: a reader cannot guess them."""
    groups = {key.partition(".")[0] for key in found.keys if "." in key}
    return [key for key in found.follow if "." not in key or key.partition(".")[0] not in groups]


def resolve(found: Results, key: str, option: str) -> str:
    """Return a factor's key as config.yaml has it: ``partition`` stands for ``partition.name``.

    Raises:
        ValueError: If no run has this option.
    """
    for name in (key, f"{key}{_CHOICE}"):
        if name == STRATEGY or name in found.settings:
            return name
    raise ValueError(
        f"{option} {key}: no run has this option; it must be one of {_known(found, key)}"
    )


def _known(found: Results, key: str) -> str:
    """Name options that runs have: what is called nearly so, what was varied, then others."""
    every = [title(name) for name in map(str, found.settings) if name != STRATEGY + _CHOICE]
    close = get_close_matches(key, every, 1, 0.75)
    varied = [title(name) for name in varied_settings(found)]
    listed = list(dict.fromkeys([*close, STRATEGY, *varied, *every]))
    return ", ".join(listed[:MAX_NAMED]) + (", ..." if len(listed) > MAX_NAMED else "")


def title(key: str) -> str:
    """Return what a factor is called: as on the command line."""
    return key.removesuffix(_CHOICE)


def value(found: Results, run: int, key: str) -> Any:
    """Return a run's value of a factor; NaN where it has none, and text for what is a list."""
    if key == STRATEGY:
        return str(found.runs.at[run, STRATEGY])
    if key == ISOLATED_ROUNDS and found.runs.at[run, "kind"] != ISOLATED:
        return math.nan
    told: Any = found.settings.at[run, key]
    return json.dumps(told) if isinstance(told, list | dict) else told


def absent(told: Any) -> bool:
    """Say whether a run has no such option."""
    return isinstance(told, float) and math.isnan(told)


def shown(told: Any) -> str:
    """Write a factor's value; one that a run does not have is empty."""
    if absent(told):
        return ""
    return f"{told:.6g}" if isinstance(told, float) else str(told)


def label(found: Results, run: int, keys: Sequence[str]) -> str:
    """Return the name of a run's row, such as ``fedavg partition.alpha=0.1``."""
    told = {key: value(found, run, key) for key in keys}
    parts = [
        shown(what) if key == STRATEGY else f"{title(key)}={shown(what)}"
        for key, what in told.items()
        if not absent(what)
    ]
    return " ".join(parts) or str(found.runs.at[run, STRATEGY])
