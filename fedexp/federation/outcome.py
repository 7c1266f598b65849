"""How far a run came, and when it has come far enough."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from fedexp.config.schema import StopConfig
from fedexp.core.weights import Weights
from fedexp.federation.evaluation import Scores
from fedexp.metrics import get as get_metric

MAX_LOSS = 1e6
"""Nats from which on a model has diverged; an untrained one has the logarithm of the labels' number."""


@dataclass
class Outcome:
    """How far the loop came.

    Attributes:
        weights: The global model's; the initial one's where no client is federated.
        rounds: Rounds completed.
        stopped_early: Whether the stop criterion ended it.
        models: The models that are tested: None -> the global one, or partition id -> a client's own.
        scores: Last scores of every model.
        own: Partition id -> metric -> the client's last number on its own test examples, of those that
            were asked.
        reported: Clients that evaluated in the last round.
        best_round: Round of the highest headline accuracy.
        best_accuracy: That accuracy.
    """

    weights: Weights
    rounds: int = 0
    stopped_early: bool = False
    models: dict[int | None, Weights] = field(default_factory=dict)
    scores: dict[int | None, Scores] = field(default_factory=dict)
    own: dict[int, dict[str, float]] = field(default_factory=dict)
    reported: set[int] = field(default_factory=set)
    best_round: int = 0
    best_accuracy: float = 0.0

    def headline(self, metric: str) -> float:
        """Return a metric on the whole test set: the global model's, or the local models' mean."""
        return float(np.mean([scores["all"][metric] for scores in self.headlined]))

    @property
    def diverged(self) -> bool:
        """Whether the loss of the global model is beyond use, or that of every local model."""
        losses = [scores["all"]["loss"] for scores in self.headlined]
        return not any(loss < MAX_LOSS for loss in losses)

    @property
    def headlined(self) -> list[Scores]:
        """The global model's scores, or those of all local models where there is none."""
        return [self.scores[None]] if None in self.scores else list(self.scores.values())


class Patience:
    """Counts rounds in a row that do not improve a metric by ``min_delta``.

    Attributes:
        best: The best value so far, turned so that larger is better; None before there was one.
        idle: Rounds since then.
    """

    def __init__(self, config: StopConfig) -> None:
        self._config = config
        self._sign = 1 if get_metric(config.metric).higher_is_better else -1
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
