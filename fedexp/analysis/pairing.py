"""Which runs make a row of a comparison, and which of them are compared with each other.

Runs are paired by seed, partition and every setting that is not a strategy's own.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import pandas as pd

from fedexp.analysis.factors import (
    ISOLATED_ROUNDS,
    STRATEGY,
    Factors,
    factors,
    is_own,
    label,
    resolve,
    title,
    unnamed,
    varied_settings,
)
from fedexp.analysis.results import CENTRALIZED, DIVERGED, FEDERATED, ISOLATED, Results

Key = tuple[Hashable, ...]


class Pairing:
    """Completed runs under the names of their rows, less those that were run again later.

    Attributes:
        factors: The options that tell rows apart.
        methods: Those among them that belong to a strategy, and the strategy itself.
        labels: Row of every run that counts, in the order of the runs.
        diverged: Row of every run that diverged.
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
        keys = [resolve(found, key, "--by") for key in by]
        self._found, self.goal = found, found.goal
        self._varied = varied_settings(found)
        chosen = Factors(keys, []) if keys else factors(found, self._varied)
        self.factors = chosen.keys
        self.methods = [k for k in chosen.keys if k == STRATEGY or is_own(found, k)]
        self.notes: list[str] = []
        self.labels = self._without_repeats({run: self._label(run) for run in found.completed})
        diverged = found.runs.index[found.runs["status"] == DIVERGED]
        self.diverged = pd.Series({run: self._label(run) for run in diverged}, dtype=object)
        self.isolated = self._pairs(ISOLATED)
        self.centralized = self._pairs(CENTRALIZED)
        self._note_tuned()
        self._note_mixtures(keys)
        self._note_unnamed(chosen)
        self._note_partitions()
        self._note_rounds()

    def _label(self, run: int) -> str:
        return label(self._found, run, self.factors)

    def _strategy(self, run: int) -> str:
        return str(self._found.runs.at[run, STRATEGY])

    def _kind(self, run: int) -> str:
        return str(self._found.runs.at[run, "kind"])

    def key(self, run: int) -> Key:
        """Return what runs must have in common to be compared with each other."""
        shared = [key for key in self._varied if not is_own(self._found, key)]
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
        own = [key for key in self._varied if is_own(self._found, key)]
        settings = self._found.settings
        same: dict[Key, list[int]] = {}
        for run in labels:
            alone = self._kind(run) == ISOLATED
            mine = (repr(settings.at[run, key]) for key in own if key != ISOLATED_ROUNDS or alone)
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

    def _note_unnamed(self, chosen: Factors) -> None:
        told = [title(key) for key in unnamed(chosen)]
        if told:
            choices = [title(key) for key in chosen.keys if title(key) != key]
            self.notes.append(
                f"rows also differ in {', '.join(told)}, each of which follows from "
                f"{' and '.join(choices) or 'the settings that are named'}"
            )

    def _note_tuned(self) -> None:
        """Say that strategies that are compared differ in what was tuned for each."""
        settings = self._found.settings.loc[self.labels.index]
        common = sorted(key for key in self._found.tuned if not key.startswith("strategy."))
        differ = [k for k in common if k in settings and settings[k].map(repr).nunique() > 1]
        if differ:
            self.notes.append(
                f"every strategy has the {' and '.join(differ)} that was tuned for it"
            )

    def _note_mixtures(self, by: Sequence[str]) -> None:
        told = factors(self._found, self._varied).keys if by else []
        hidden = [key for key in told if key not in (STRATEGY, *by)]
        mixed = [key for key in hidden if self._is_mixed(key)]
        if mixed:
            names = ", ".join(title(key) for key in mixed)
            self.notes.append(f"rows average over runs that differ in {names}")
        if others := [title(key) for key in hidden if key not in mixed]:
            self.notes.append(f"rows also differ in {', '.join(others)}")

    def _is_mixed(self, key: str) -> bool:
        """Say whether runs of one row differ in a setting."""
        values = self._found.settings[key].loc[self.labels.index].astype(str)
        return bool((values.groupby(self.labels).nunique() > 1).any())

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
