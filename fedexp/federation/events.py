"""What a run tells those who listen to it: its folder, the terminal, trackers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from fedexp.config.schema import Config
from fedexp.core.weights import Weights

COMPLETED, FAILED, INTERRUPTED = "completed", "failed", "interrupted"
DROPPED_OUT = "clients.dropout="
"""Stands in the reason of a client that the options have fail."""

DIVERGED = "diverged"
"""The run's model is of no use any more: its loss is NaN or has no bounds, or its weights overflowed."""


class Measurement(NamedTuple):
    """One number, and exactly which one it is; a row of metrics.csv.

    Attributes:
        round: Round after which it was taken; 0 is the initial model.
        model: ``global``, ``local`` (a client's own) or ``tuned`` (what a client is tested with, after
            ``clients.tuned_steps`` more steps).
        split: ``train``, ``test``, ``client_test``, ``newcomer_test`` (the share of a client that took
            part in no round), ``val`` (held out by the server) or ``client_val`` (held out by clients).
        subset: ``all``, or labels joined by hyphens.
        client: Partition id, or None where the number is not one client's.
        metric: A metric of the run, or ``bytes_down`` and ``bytes_up`` (of weights sent to and by clients
            in the round).
        value: The number.
    """

    round: int
    model: str
    split: str
    subset: str
    client: int | None
    metric: str
    value: float


class Failure(NamedTuple):
    """A client that failed, or that is faulty; a row of failures.csv."""

    round: int
    phase: str
    client: int
    reason: str


@dataclass
class RoundReport:
    """All that a round came to.

    Attributes:
        round: The round; 0 is the initial model.
        measurements: Its rows of metrics.csv.
        seconds: Phase -> seconds, in the order of the phases.
        failures: Its rows of failures.csv.
        headline: Metric -> the global model's on the whole test set, or the mean of the local models';
            the metric by which the task is judged comes first.
        local: Whether the headline is the local models' mean.
        judged: Metric -> what it is on held-out examples; empty where none are held out.
        weights: What :class:`Ending` has of the final models, where this round's are to be kept.
    """

    round: int
    measurements: list[Measurement] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    headline: dict[str, float] = field(default_factory=dict)
    local: bool = False
    judged: dict[str, float] = field(default_factory=dict)
    weights: Weights | None = None

    @property
    def num_failures(self) -> int:
        """Clients that failed; round 0 says which are faulty, not that they failed."""
        return len(self.failures) if self.round else 0


@dataclass(frozen=True)
class RunInfo:
    """What is known of a run before it starts.

    Attributes:
        config: Its configuration.
        folder: Where it is written.
        overrides: The command-line overrides that make this configuration.
        sweep: Name of the multirun that it is part of, if any.
        label: Stands before every line that is printed, where several runs print at the same time.
        resume: The checkpoint that an earlier process left, where the run goes on from one.
        again: Whether the folder is this run's own, to be begun anew.
    """

    config: Config
    folder: Path
    overrides: Sequence[str] = ()
    sweep: str | None = None
    label: str = ""
    resume: Mapping[str, Any] | None = None
    again: bool = False

    @property
    def name(self) -> str:
        """Strategy, partition and seed, as in ``fedavg-dir0.3-s1``."""
        config = self.config
        return f"{config.strategy.name}-{config.partition.label}-s{config.seed}"


@dataclass(frozen=True, eq=False)
class Ending:
    """How a run ended, all of it; made once, and told to every listener.

    Attributes:
        status: ``completed``, ``diverged``, ``failed`` or ``interrupted``.
        summary: What stands in summary.json.
        measurements: The clients' last numbers on their own test examples.
        further: The same of models beside those that clients are tested with; none is in metrics.csv yet.
        reported: Clients whose last numbers stand in metrics.csv already.
        weights: The global model's, or all local models' under ``<client>/<name>``; None if there is no
            final model.
        best: The same of the best round.
        confusion: Examples per true label (row) and predicted label (column): of the global model under
            None, or of every client's. None if there is no final model, or the task has no labels.
        pictures: Name -> PNG.
        clients: A row per client: ``client``, ``images``, ``test_images``, ``labels``, and its metrics.
        notes: What is to be said of the ending, a line each.
    """

    status: str
    summary: Mapping[str, Any]
    measurements: Sequence[Measurement] = ()
    further: Sequence[Measurement] = ()
    reported: frozenset[int] = frozenset()
    weights: Weights | None = None
    best: Weights | None = None
    confusion: Mapping[int | None, Any] | None = None
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    clients: Sequence[Mapping[str, Any]] = ()
    notes: Sequence[str] = ()


class Listener:
    """Somebody who is told how a run goes; the defaults take no notice."""

    def begin(self, run: RunInfo) -> None:
        """The run starts."""

    def dealt(self, partition: Mapping[str, Any]) -> None:
        """The examples are dealt; ``partition`` is what stands in partition.json."""

    def progress(self, server_round: int, phase: str, done: int, total: int) -> None:
        """So many of a round's clients have answered."""

    def round(self, report: RoundReport) -> None:
        """A round is over; one that broke off is told, too, as far as it went."""

    def end(self, ending: Ending) -> None:
        """The run is over; told once."""


class Listeners(Listener):
    """All who listen, in order: the run's folder first, because files are the truth."""

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = listeners
        self._ending: Ending | None = None
        self._begun = self._ended = 0

    def begin(self, run: RunInfo) -> None:
        """Tell everybody."""
        for listener in self._listeners:
            listener.begin(run)
            self._begun += 1

    def dealt(self, partition: Mapping[str, Any]) -> None:
        """Tell everybody."""
        for listener in self._listeners:
            listener.dealt(partition)

    def progress(self, server_round: int, phase: str, done: int, total: int) -> None:
        """Tell everybody."""
        for listener in self._listeners:
            listener.progress(server_round, phase, done, total)

    def round(self, report: RoundReport) -> None:
        """Tell everybody."""
        for listener in self._listeners:
            listener.round(report)

    def end(self, ending: Ending) -> None:
        """Tell everybody who has begun and was not told yet.

        A run ends once, when the first listener, its folder, has taken the ending in; until then it can
        still fail. Where telling the others is cut short, as by a reader that goes away before the last
        line is printed, the rest is told the same ending whatever comes afterwards.
        """
        if self._begun and not self._ended:
            self._listeners[0].end(ending)
            self._ending, self._ended = ending, 1
        while self._ended < self._begun:
            assert self._ending is not None
            self._ended += 1
            self._listeners[self._ended - 1].end(self._ending)
