"""Which runs make a row of a comparison, and which of them are compared with each other.

Runs are paired by seed, partition and every setting that is not a strategy's own.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import pandas as pd

from fedexp.analysis.results import CENTRALIZED, FEDERATED, ISOLATED, Results

STRATEGY = "strategy"
"""What a row is called by, beside settings."""

# These settings change no result, or are told apart otherwise.
_NOT_SETTINGS = ("name", "mode", "seed", "metrics", "objective", "dataset.root", "strategy.name")
_NOT_GROUPS = ("backend.", "tracking.")
_ISOLATED_ROUNDS = "isolated_rounds"

Key = tuple[Hashable, ...]


def varied_settings(found: Results) -> list[str]:
    """Return the options that can change results, but for seed and strategy, in which runs differ.

    A strategy's own options count as different only between runs of that strategy.
    """
    strategies = found.runs.loc[found.completed, STRATEGY]
    kinds = found.runs.loc[found.completed, "kind"]
    settings = found.settings.loc[found.completed]
    varied = []
    for key in map(str, settings):
        if key in _NOT_SETTINGS or key.startswith(_NOT_GROUPS):
            continue
        words = settings[key].map(repr)
        if key == _ISOLATED_ROUNDS:
            words = words[kinds == ISOLATED]
        owners = strategies if _is_own(key) else pd.Series("", index=words.index)
        if (words.groupby(owners.loc[words.index]).nunique() > 1).any():
            varied.append(key)
    return varied


def _is_own(key: str) -> bool:
    """Say whether an option belongs to one strategy and does not concern what it is compared with."""
    return key == _ISOLATED_ROUNDS or key.startswith("strategy.")


class Pairing:
    """Completed runs under the names of their rows, less those that were run again later.

    Attributes:
        labels: Row of every run that counts, in the order of the runs.
        isolated: Run -> the run of isolated clients that it is compared with, where there is one.
        centralized: Run -> the centralized run that it is compared with.
        notes: What was left out, and what is not comparable.
    """

    def __init__(self, found: Results, by: Sequence[str]) -> None:
        """Name and pair the completed runs.

        Args:
            found: What was read from disk.
            by: Options that tell rows apart; none stands for the strategy and every setting that varies.

        Raises:
            ValueError: If ``by`` names an option that the runs do not have.
        """
        unknown = [key for key in by if key != STRATEGY and key not in found.settings]
        if unknown:
            known = ", ".join([STRATEGY, *map(str, found.settings)])
            raise ValueError(
                f"--by {unknown[0]}: no run has this option; it must be one of {known}"
            )
        self._found = found
        self._varied = varied_settings(found)
        keys = by or [STRATEGY, *self._varied]
        self.notes: list[str] = []
        self.labels = self._without_repeats(
            {run: self._label(run, keys) for run in found.completed}
        )
        self.isolated = self._pairs(ISOLATED)
        self.centralized = self._pairs(CENTRALIZED)
        self._note_mixtures(by)
        self._note_partitions()
        self._note_rounds()

    def _label(self, run: int, keys: Iterable[str]) -> str:
        parts = []
        strategy = self._strategy(run)
        for key in keys:
            if key == STRATEGY:
                parts.append(strategy)
            elif key != _ISOLATED_ROUNDS or self._kind(run) == ISOLATED:
                value: Any = self._found.settings.at[run, key]
                absent = isinstance(value, float) and math.isnan(value)  # from this run's options
                shown = f"{value:.6g}" if isinstance(value, float) else value
                parts += [] if absent else [f"{key}={shown}"]
        return " ".join(parts) or strategy

    def _strategy(self, run: int) -> str:
        return str(self._found.runs.at[run, STRATEGY])

    def _kind(self, run: int) -> str:
        return str(self._found.runs.at[run, "kind"])

    def key(self, run: int) -> Key:
        """Return what runs must have in common to be compared with each other."""
        shared = [key for key in self._varied if not _is_own(key)]
        settings = (repr(self._found.settings.at[run, key]) for key in shared)
        return (self.draws(run), *settings)

    def draws(self, run: int) -> Key:
        """Return the seed and the partition of a run."""
        runs: Any = self._found.runs
        return (runs.at[run, "seed"], runs.at[run, "partition_sha256"])

    def seeds(self) -> pd.Series:
        """Return the seed of every run."""
        return self._found.runs["seed"]

    def _without_repeats(self, labels: dict[int, str]) -> pd.Series:
        """Drop runs of which the same was run again later: they would pass for further seeds."""
        own = [key for key in self._varied if _is_own(key)]
        settings = self._found.settings
        same: dict[Key, list[int]] = {}
        for run in labels:
            alone = self._kind(run) == ISOLATED
            mine = (repr(settings.at[run, key]) for key in own if key != _ISOLATED_ROUNDS or alone)
            same.setdefault((self._strategy(run), self.key(run), *mine), []).append(run)
        repeats: list[int] = []
        for runs in same.values():
            if len(runs) > 1:
                repeats += sorted(runs, key=lambda run: (self._found.started(run), run))[:-1]
        if repeats:
            self.notes.append(
                f"{_count(len(repeats), 'run')} left out: run again later with the same seed and settings"
            )
        kept = {run: label for run, label in labels.items() if run not in repeats}
        return pd.Series(kept, dtype=object)

    def _pairs(self, reference: str) -> dict[int, int]:
        kinds = {run: self._kind(run) for run in self.labels.index}
        references = {self.key(run): run for run, kind in kinds.items() if kind == reference}
        self._note_choice(reference, references, kinds)
        others = [run for run, kind in kinds.items() if kind != reference]
        pairs = {run: references[self.key(run)] for run in others if self.key(run) in references}
        alone = [r for r in others if r not in pairs and kinds[r] == FEDERATED]
        if references and alone:
            names = ", ".join(dict.fromkeys(str(self.labels[run]) for run in alone))
            self.notes.append(
                f"no {reference} run of the same seed, partition and settings for "
                f"{_count(len(alone), 'run')} ({names}), which are not compared with one"
            )
        return pairs

    def _note_choice(self, reference: str, chosen: dict[Key, int], kinds: dict[int, str]) -> None:
        """Say which runs the others are compared with where they could be compared with several."""
        of_kind = [run for run, kind in kinds.items() if kind == reference]
        if len(of_kind) > len(chosen):
            names = ", ".join(dict.fromkeys(str(self.labels[run]) for run in chosen.values()))
            self.notes.append(
                f"several {reference} runs of the same seed, partition and settings: the others are "
                f"compared with {names}"
            )

    def _note_mixtures(self, by: Sequence[str]) -> None:
        hidden = [key for key in self._varied if key not in by] if by else []
        if hidden:
            self.notes.append(f"rows average over runs that differ in {', '.join(hidden)}")

    def _note_partitions(self) -> None:
        """Say where runs of one seed and the same settings hold different partitions."""
        partitions: dict[Key, set[Hashable]] = {}
        for run in self.labels.index:
            seed, partition = self.draws(run)
            partitions.setdefault((seed, *self.key(run)[1:]), set()).add(partition)
        for (seed, *_), hashes in partitions.items():
            if len(hashes) > 1:
                self.notes.append(
                    f"seed {seed}: the runs hold {len(hashes)} different partitions; only runs on the "
                    "same one are compared with each other"
                )

    def _note_rounds(self) -> None:
        """Say so where rows were trained for different numbers of rounds."""
        rounds = self._found.runs.loc[list(self.labels.index), "rounds"]
        told = {
            name: "/".join(str(int(number)) for number in sorted(done.dropna().unique()))
            for name, done in rounds.groupby(self.labels, sort=False)
        }
        if len(set(told.values())) > 1:
            listed = ", ".join(f"{name} {done}" for name, done in told.items())
            self.notes.append(f"rounds trained differ: {listed}")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
