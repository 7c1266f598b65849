"""How runs came about: in which options they differ, and the command that makes each again."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from fedexp.analysis import results
from fedexp.analysis.results import Results

MAX_LISTED = 5
"""Values that a caption names."""

PANEL = "partition.panel"
"""The option that says how many of many clients are listed."""


class Command(NamedTuple):
    """How to make a run again.

    Attributes:
        run: The run's number.
        line: What to type, quoted for a POSIX shell; empty where the run does not say.
        code: The git commit it ran from, as far as it is known.
    """

    run: int
    line: str
    code: str


def differences(found: Results) -> list[str]:
    """Return the options that are not the same in all runs, in the order of config.yaml.

    A run whose config.yaml could not be read differs in none.
    """
    words = found.settings.dropna(how="all").map(repr)
    return [str(key) for key in words if words[key].nunique() > 1]


def shown(value: Any) -> str:
    """Write an option's value; one that a run does not have is empty."""
    if isinstance(value, float) and math.isnan(value):
        return ""
    if isinstance(value, str):
        return value
    return f"{value:.6g}" if isinstance(value, float) else json.dumps(value, default=str)


def about(found: Results) -> str:
    """Return what runs are of, for a caption: dataset, partition, clients, seeds, and their date."""
    parts = []
    for word, key in (("dataset", "dataset.name"), ("partition", "partition.name")):
        if key in found.settings:
            parts.append(f"{word} {_listed(found.settings[key].dropna())}")
    if "clients.num" in found.settings:
        parts.append(f"{_listed(found.settings['clients.num'].dropna())} clients")
    if PANEL in found.settings:
        most, clients = found.settings[PANEL], found.settings["clients.num"]
        if (most < clients).any():
            parts[-1] += f" (own numbers: of {_listed(most[most < clients])} drawn at random)"
    seeds = found.runs["seed"].dropna()
    parts.append(f"seed{'s' if seeds.nunique() > 1 else ''} {_listed(seeds)}")
    started = [when for run in found.runs.index if (when := found.started(run))]
    if started:
        parts.append(f"run on {datetime.fromtimestamp(max(started), UTC):%Y-%m-%d}")
    return ", ".join(parts)


def _listed(values: pd.Series) -> str:
    words = [shown(told) for told in values.unique().tolist()]
    rest = ["..."] if len(words) > MAX_LISTED else []
    return ", ".join([*words[:MAX_LISTED], *rest])


def command(found: Results, run: int) -> Command:
    """Return how to make a run again, from what it recorded of itself."""
    try:
        recorded = results.environment(found.path(run))
    except (
        OSError,
        ValueError,
    ):  # a run that was cut off before it wrote the file, or while it did
        return Command(run, "", "")
    program = _program(recorded.get("command") or [], recorded.get("plugins") or [])
    words = [*program, *_words(recorded.get("overrides") or [], recorded.get("command") or [])]
    commit = recorded.get("git_commit")
    dirty = " and uncommitted changes" if recorded.get("git_dirty") else ""
    return Command(run, shlex.join(words), f"commit {commit[:12]}{dirty}" if commit else "")


def _program(told: Sequence[str], plugins: Sequence[dict[str, Any]]) -> list[str]:
    """Return what starts a run: a script that brings what the run makes use of, or fedexp itself."""
    scripts = [Path(plugin["file"]).name for plugin in plugins if "package" not in plugin]
    return ["python", told[0]] if told and told[0] in scripts else ["fedexp"]


_FILES = ("--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp")


def _words(overrides: Sequence[str], told: Sequence[str]) -> list[str]:
    words: list[str] = []
    for number, word in enumerate(told):  # the user's own files are no overrides
        if word in _FILES:
            words += told[number : number + 2]
        elif word.startswith(tuple(f"{flag}=" for flag in _FILES)):
            words.append(word)
    # An experiment may ask for a multirun by itself, where a sweeper would choose values anew.
    single = ["hydra.mode=RUN"] if any("experiment=" in word for word in overrides) else []
    return [*words, *overrides, *single]
