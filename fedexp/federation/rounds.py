"""The round loop over Flower's ``Strategy`` interface.

Sample, train, guard, aggregate, evaluate, record, and stop on convergence. Flower's own loop
(``Strategy.start``) is not used because it draws cohorts from a global generator, takes NaN for a
result, and goes on with old weights when every client has failed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedexp.backends.grid import CohortGrid
from fedexp.config.schema import Config, StopConfig
from fedexp.core import signals
from fedexp.core.options import FedexpError
from fedexp.core.seeding import Purpose, derive_rng
from fedexp.federation.behaviour import byzantine_clients
from fedexp.federation.evaluation import Scores, ServerEvaluation
from fedexp.federation.guards import restore_dtypes, weights_problem
from fedexp.federation.replies import (
    evaluation_problem,
    evaluation_rows,
    letting_go,
    metrics_of,
    num_bytes,
    training_problem,
)
from fedexp.flower.arrays import to_record, to_weights
from fedexp.flower.protocol import NUM_EXAMPLES, TRAIN_LOSS
from fedexp.models.networks import Weights
from fedexp.strategies.centralized import Centralized
from fedexp.strategies.local_only import LocalOnly
from fedexp.tracking.run_folder import Metric, RunFolder


@dataclass
class Progress:
    """Where the loop tells what it is doing; the defaults say nothing.

    Attributes:
        on_clients: Called with round, phase, replies so far, size of the cohort.
        on_round: Called with round and headline accuracy and loss, after round 0 and every other.
    """

    on_clients: Callable[[int, str, int, int], None] = lambda *_: None
    on_round: Callable[[int, float, float], None] = lambda *_: None


@dataclass
class Outcome:
    """How the loop ended.

    Attributes:
        rounds: Rounds completed.
        stopped_early: Whether the stop criterion ended it.
        weights: The global model's, or with ``local_only`` the initial one's.
        local_weights: Partition id -> weights, with ``local_only`` only.
        scores: Last scores of every model; key None is the global model, others are partition ids.
        reported: Clients that evaluated in the last round.
        best_round: Round of the highest headline accuracy.
        best_accuracy: That accuracy.
    """

    weights: Weights
    rounds: int = 0
    stopped_early: bool = False
    local_weights: dict[int, Weights] = field(default_factory=dict)
    scores: dict[int | None, Scores] = field(default_factory=dict)
    reported: set[int] = field(default_factory=set)
    best_round: int = 0
    best_accuracy: float = 0.0

    def headline(self, metric: str) -> float:
        """Return a metric on the whole test set: the global model's, or the local models' mean."""
        return float(np.mean([scores["all"][metric] for scores in self.scores.values()]))


def draw_cohort(config: Config, purpose: Purpose, fraction: float, server_round: int) -> list[int]:
    """Draw the clients of a round, without replacement; at least one, in order of partition.

    Depends on the seed and the round only, so that a round can be repeated on its own.
    """
    size = config.clients.cohort_size(fraction)
    rng = derive_rng(config.seed, purpose, server_round)
    return sorted(rng.choice(config.clients.num, size, replace=False).tolist())


class RoundLoop:
    """One experiment's rounds; :meth:`run` is the ServerApp's body."""

    def __init__(
        self,
        config: Config,
        strategy: Strategy,
        evaluation: ServerEvaluation,
        folder: RunFolder,
        initial: Weights,
        progress: Progress,
    ) -> None:
        self._config, self._strategy, self._evaluation = config, strategy, evaluation
        self._folder, self._progress = folder, progress
        self._arrays = to_record(initial)
        self._bytes_down = self._bytes_up = 0
        self.outcome = Outcome(weights=initial)

    def run(self, grid: CohortGrid) -> None:
        """Run every round, or as many as the stop criterion allows.

        Raises:
            FedexpError: If no client of a round returns anything that can be aggregated.
        """
        signals.obey()
        self._record_faults()
        self._evaluate(0)
        self._folder.end_round(0)
        stop = Patience(self._config.stop, self.outcome.headline(self._config.stop.metric))
        for server_round in range(1, self._config.num_rounds + 1):
            self._train(server_round, grid)
            if self._config.clients.fraction_evaluate > 0:
                self._evaluate_on_clients(server_round, grid)
            self._evaluate(server_round)
            self._record_traffic(server_round)
            self.outcome.rounds = server_round
            self._folder.end_round(server_round)
            signals.obey()
            if stop.exhausted(self.outcome.headline(self._config.stop.metric)):
                self.outcome.stopped_early = server_round < self._config.num_rounds
                break

    def _record_faults(self) -> None:
        self._folder.add_failures(
            0,
            "byzantine",
            dict.fromkeys(byzantine_clients(self._config), self._config.clients.byzantine.kind),
        )

    def _record_traffic(self, server_round: int) -> None:
        # Isolated clients would send nothing, and those of `centralized` images.
        if not isinstance(self._strategy, LocalOnly | Centralized):
            self._folder.add_metrics(
                [
                    Metric(
                        server_round, "global", "train", "all", None, "bytes_down", self._bytes_down
                    ),
                    Metric(
                        server_round, "global", "train", "all", None, "bytes_up", self._bytes_up
                    ),
                ]
            )
        self._bytes_down = self._bytes_up = 0

    def _train(self, server_round: int, grid: CohortGrid) -> None:
        fraction = self._config.clients.fraction_train
        grid.cohort = draw_cohort(self._config, "cohort", fraction, server_round)
        replies = self._exchange(server_round, "train", self._strategy.configure_train, grid)
        with self._timed(server_round, "aggregate"), letting_go():
            weights_before = self.outcome.weights
            usable = self._guard(
                server_round, "train", replies, partial(training_problem, model=weights_before)
            )
            self._require(server_round, len(usable))
            arrays, metrics = self._strategy.aggregate_train(server_round, usable)
            if arrays is not None:
                weights = restore_dtypes(to_weights(arrays), weights_before)
                problem = weights_problem(weights, weights_before)
                if problem:
                    raise FedexpError(f"round {server_round}: the aggregate is unusable: {problem}")
                self._arrays, self.outcome.weights = to_record(weights), weights
        loss = None if metrics is None else metrics.get(TRAIN_LOSS)
        if isinstance(loss, float):
            self._folder.add_metrics(
                [Metric(server_round, "local", "train", "all", None, "loss", loss)]
            )

    def _evaluate_on_clients(self, server_round: int, grid: CohortGrid) -> None:
        fraction = self._config.clients.fraction_evaluate
        grid.cohort = draw_cohort(self._config, "evaluate_cohort", fraction, server_round)
        configure = self._strategy.configure_evaluate
        replies = self._exchange(server_round, "client_evaluate", configure, grid)
        usable = self._guard(server_round, "client_evaluate", replies, evaluation_problem)
        weighty = [reply for reply in usable if metrics_of(reply)[NUM_EXAMPLES]]
        self.outcome.reported = {reply.metadata.src_node_id for reply in weighty}
        if not weighty:
            return  # no client of the cohort holds a test image: there is nothing to average
        model = "local" if isinstance(self._strategy, LocalOnly) else "global"
        rows = list(evaluation_rows(server_round, model, weighty))
        mean = self._strategy.aggregate_evaluate(server_round, weighty) or MetricRecord()
        rows += [
            Metric(server_round, model, "client_test", "all", None, name, value)
            for name, value in mean.items()
            if isinstance(value, float)
        ]
        self._folder.add_metrics(rows)

    def _exchange(
        self,
        server_round: int,
        phase: str,
        configure: Callable[[int, ArrayRecord, ConfigRecord, Grid], Iterable[Message]],
        grid: CohortGrid,
    ) -> list[Message]:
        with self._timed(server_round, phase):
            messages = list(configure(server_round, self._arrays, ConfigRecord(), grid))
            grid.on_reply = lambda done: self._progress.on_clients(
                server_round, phase, done, len(messages)
            )
            replies = list(grid.send_and_receive(messages))
        self._bytes_down += num_bytes(messages)
        self._bytes_up += num_bytes(replies)
        return replies

    def _guard(
        self,
        server_round: int,
        phase: str,
        replies: list[Message],
        problem_of: Callable[[Message], str | None],
    ) -> list[Message]:
        failures = {}
        for reply in replies:
            problem = reply.error.reason if reply.has_error() else problem_of(reply)
            if problem:
                failures[reply.metadata.src_node_id] = problem
        self._folder.add_failures(server_round, phase, failures)
        if len(failures) == len(replies):
            client, reason = next(iter(failures.items()), (None, "no client replied"))
            raise FedexpError(
                f"round {server_round}: all {len(replies)} clients failed to {phase}; "
                f"client {client}: {reason}"
            )
        return [reply for reply in replies if reply.metadata.src_node_id not in failures]

    def _require(self, server_round: int, num_replies: int) -> None:
        strategy = self._config.strategy
        if num_replies < strategy.min_clients:
            raise FedexpError(
                f"round {server_round}: strategy={strategy.name} needs {strategy.min_clients} replies "
                f"({strategy.formula}), got {num_replies}: a larger clients.fraction_train or "
                "clients.num, or a smaller clients.dropout"
            )

    def _evaluate(self, server_round: int) -> None:
        outcome, strategy = self.outcome, self._strategy
        with self._timed(server_round, "evaluate"):
            if not isinstance(strategy, LocalOnly):
                fresh: dict[int | None, Scores] = {None: self._evaluation.scores(outcome.weights)}
            elif server_round == 0:
                initial = self._evaluation.scores(outcome.weights)
                fresh = dict.fromkeys(range(self._config.clients.num), initial)
            else:
                fresh = {}
                for client in strategy.updated:
                    weights = to_weights(strategy.local_arrays[client])
                    outcome.local_weights[client] = weights
                    fresh[client] = self._evaluation.scores(weights)
        outcome.scores.update(fresh)
        self._folder.add_metrics(_score_rows(server_round, fresh))
        accuracy = outcome.headline("accuracy")
        if accuracy > outcome.best_accuracy:
            outcome.best_round, outcome.best_accuracy = server_round, accuracy
        self._progress.on_round(server_round, accuracy, outcome.headline("loss"))

    @contextmanager
    def _timed(self, server_round: int, phase: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._folder.add_timing(server_round, phase, time.perf_counter() - start)


class Patience:
    """Count rounds in a row that do not improve a metric by ``min_delta``."""

    def __init__(self, config: StopConfig, initial: float) -> None:
        self._config = config
        self._best = self._oriented(initial)
        self._idle = 0

    def exhausted(self, value: float) -> bool:
        """Take in a round's value; return True when patience is at an end."""
        if self._config.patience is None:
            return False
        if self._oriented(value) >= self._best + self._config.min_delta:
            self._best, self._idle = self._oriented(value), 0
        else:
            self._idle += 1
        return self._idle >= self._config.patience

    def _oriented(self, value: float) -> float:
        return -value if self._config.metric == "loss" else value


def _score_rows(server_round: int, scores: dict[int | None, Scores]) -> Iterator[Metric]:
    for client, subsets in scores.items():
        model = "global" if client is None else "local"
        for subset, metrics in subsets.items():
            for name, value in metrics.items():
                yield Metric(server_round, model, "test", subset, client, name, value)
