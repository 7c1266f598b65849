"""How far a run came, and when it has come far enough."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from fedexp.config.schema import StopConfig
from fedexp.core.weights import Weights, copied
from fedexp.federation.evaluation import Scores
from fedexp.metrics import sign_of
from fedexp.tasks.classification import MAX_LOSS, Classification


@dataclass(frozen=True, eq=False)
class Choice:
    """A model that is the best so far.

    Attributes:
        round: Of which round it is.
        weights: The model's.
        merit: What it was chosen for, turned so that larger is better; NaN where there is nothing.
        reported: The clients that tested it themselves in that round.
    """

    round: int
    weights: Weights
    merit: float = math.nan
    reported: frozenset[int] = frozenset()


@dataclass
class Outcome:
    """How far the loop came.

    Attributes:
        weights: The global model's; the initial one's where no client is federated.
        initial: The weights that the model was built with.
        judged_by: The metric by which the task is judged.
        largest_loss: The loss from which on a model has diverged.
        rounds: Rounds completed.
        stopped_early: Whether the stop criterion ended it.
        personal: Partition id -> the model that a personalised strategy made for the client last.
        trained: Clients that trained since such models were made.
        newcomers: The same of clients that took part in no round.
        tuned: Partition id -> the model that the client is tested with, after some more steps.
        models: The models that are tested: None -> the global one, or partition id -> a client's own.
        scores: Last scores of every model.
        own: Partition id -> metric -> the client's last number on its own test examples, of those that
            were asked.
        reported: Clients that evaluated in the last round.
        val: Last validation numbers of every model, metric -> value: the server's for the global model,
            the client's own for a client's, and where those have no examples the other ones. Empty where
            nothing is held out.
        best_round: Round of the best headline; 0 where validation chooses.
        best_value: That headline; None where validation chooses.
        chosen: The models that are the best so far, by owner.
    """

    weights: Weights
    initial: Weights = field(default_factory=dict)
    judged_by: str = Classification.headline
    largest_loss: float = MAX_LOSS
    rounds: int = 0
    stopped_early: bool = False
    personal: dict[int, Weights] = field(default_factory=dict)
    trained: set[int] = field(default_factory=set)
    newcomers: dict[int, Weights] = field(default_factory=dict)
    tuned: dict[int, Weights] = field(default_factory=dict)
    models: dict[int | None, Weights] = field(default_factory=dict)
    scores: dict[int | None, Scores] = field(default_factory=dict)
    own: dict[int, dict[str, float]] = field(default_factory=dict)
    reported: set[int] = field(default_factory=set)
    val: dict[int | None, dict[str, float]] = field(default_factory=dict)
    best_round: int = 0
    best_value: float | None = None
    chosen: dict[int | None, Choice] = field(default_factory=dict)

    def headline(self, metric: str) -> float:
        """Return a metric on the whole test set: the global model's, or the local models' mean."""
        return float(np.mean([scores["all"][metric] for scores in self.headlined]))

    def judged(self, metric: str) -> float:
        """Return the metric that decides: on what is held out, or on the test set where nothing is."""
        return float(np.mean([numbers[metric] for numbers in self._judges]))

    @property
    def _judges(self) -> list[dict[str, float]]:
        """What decides: validation numbers, or those on the test set where nothing is held out."""
        if not self.val:
            return [scores["all"] for scores in self.headlined]
        return [self.val[None]] if None in self.val else list(self.val.values())

    @property
    def diverged(self) -> bool:
        """Whether the loss of the global model is beyond use, or that of every local model."""
        losses = [numbers["loss"] for numbers in self._judges]
        return not any(loss < self.largest_loss for loss in losses)

    @property
    def has_diverged(self) -> bool:
        """The same in the middle of a run, where nothing may have been measured yet."""
        return bool(self.scores) and self.diverged

    def choose(self, server_round: int, metric: str) -> None:
        """Take in a round: keep its models where they are the best so far.

        Without validation the round decides that has the best headline on the test set, for all models
        alike. With it, the best value of a metric decides, for every client's own model by itself; a
        client that has nothing to go by keeps its last model.
        """
        if not self.val:
            value = self.headline(self.judged_by)
            if self._is_better(value) or server_round == 0:
                self.best_round, self.best_value = server_round, value
                self.chosen = {owner: self._choice(server_round, owner) for owner in self.models}
            return
        sign = sign_of(metric)
        for owner in self.models:
            merit = sign * self.val[owner][metric] if owner in self.val else math.nan
            before = self.chosen.get(owner)
            better = before is None or merit > before.merit or math.isnan(before.merit)
            if better:
                self.chosen[owner] = self._choice(server_round, owner, merit)

    def _is_better(self, value: float) -> bool:
        before = self.best_value
        if before is None or math.isnan(before):
            return True
        return sign_of(self.judged_by) * (value - before) > 0

    def _choice(self, server_round: int, owner: int | None, merit: float = math.nan) -> Choice:
        weights = self.models[owner]
        if (
            owner is None
        ):  # a strategy may write into what it returned; a client's model is not written to
            return Choice(server_round, copied(weights), merit, frozenset(self.reported))
        return Choice(server_round, weights, merit, frozenset(self.reported & {owner}))

    @property
    def headlined(self) -> list[Scores]:
        """The global model's scores, or those of all local models where there is none."""
        return [self.scores[None]] if None in self.scores else list(self.scores.values())


def of_choices(chosen: Mapping[int | None, Choice]) -> dict[int | None, Weights]:
    """Return the models that were chosen, by owner."""
    return {owner: choice.weights for owner, choice in chosen.items()}


class Patience:
    """Counts rounds in a row that do not improve a metric by ``min_delta``.

    Attributes:
        best: The best value so far, turned so that larger is better; None before there was one.
        idle: Rounds since then.
    """

    def __init__(self, config: StopConfig) -> None:
        self._config = config
        self._sign = sign_of(config.metric)
        self.best: float | None = None
        self.idle = 0

    def take_in(self, value: float) -> None:
        """Take in the initial model's value, then every round's; NaN is no improvement."""
        turned = self._sign * value
        if math.isnan(turned):
            self.idle += 1
        elif self.best is None or turned >= self.best + self._config.min_delta:
            self.best, self.idle = turned, 0
        else:
            self.idle += 1

    @property
    def exhausted(self) -> bool:
        """Whether patience is at an end."""
        return self._config.patience is not None and self.idle >= self._config.patience
