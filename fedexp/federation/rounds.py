"""The round loop.

Sample, train, guard, combine, evaluate, tell, and stop on convergence. Flower's own loop
(``Strategy.start``) is not used because it draws cohorts from a global generator, takes NaN for a
result, and goes on with old weights when every client has failed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from flwr.app import Message, MessageType, RecordDict

from fedexp.config.schema import Config
from fedexp.core import signals
from fedexp.core.buffers import BuffersApart
from fedexp.core.options import DivergedError, FedexpError
from fedexp.core.roles import Order, Server, Setup, Update, Updates, weighted_mean
from fedexp.core.weights import Weights, restore_dtypes
from fedexp.federation.cohort import draw_cohort
from fedexp.federation.evaluation import Scores, ServerEvaluation
from fedexp.federation.events import Failure, Listener, Measurement, RoundReport
from fedexp.federation.faults import byzantine_clients, collude
from fedexp.federation.guards import (
    NOT_FINITE,
    evaluation_problem,
    letting_go,
    training_problem,
    weights_problem,
)
from fedexp.federation.outcome import Outcome, Patience
from fedexp.federation.snapshot import Keeper, restore, take
from fedexp.flower.grid import CohortGrid
from fedexp.flower.messages import (
    NUM_EXAMPLES,
    metrics_of,
    num_bytes,
    pack_order,
    unpack_update,
)


def build_server(config: Config, evaluation: ServerEvaluation) -> Server:
    """Return the server's side of the strategy, kept away from buffers where it must be."""
    buffers = evaluation.buffers
    setup = Setup(config.clients.num, evaluation.parameters, buffers, config.training.rate)
    server = config.strategy.server(setup)
    apart = buffers and config.strategy.averages_buffers
    return BuffersApart(server, buffers) if apart else server


class RoundLoop:
    """One experiment's rounds; :meth:`run` is the ServerApp's body."""

    def __init__(
        self, config: Config, server: Server, evaluation: ServerEvaluation, listener: Listener
    ) -> None:
        self._config, self._server, self._evaluation = config, server, evaluation
        self._listener = listener
        self._attack = config.clients.byzantine.attack()
        self._bytes_down = self._bytes_up = 0
        self._report = RoundReport(0)
        self.outcome = Outcome(weights=evaluation.initial)

    def run(
        self,
        grid: CohortGrid,
        startup: float = 0.0,
        keeper: Keeper | None = None,
        resume: Mapping[str, Any] | None = None,
    ) -> None:
        """Run every round, or as many as the stop criterion allows.

        Args:
            grid: Reaches the clients.
            startup: Seconds that went by before the first evaluation.
            keeper: Keeps the state after a round, where the run is to be resumable.
            resume: A state that was kept, to go on from.

        Raises:
            FedexpError: If no client of a round returns anything that can be combined.
        """
        signals.obey()
        outcome, stopping = self.outcome, self._config.stop
        keeper, stop = keeper or Keeper(), Patience(stopping)
        if resume is None:
            with self._telling(0):
                self._report.seconds["startup"] = startup
                self._report_faults()
                self._evaluate(0)
            stop.take_in(outcome.headline(stopping.metric))
        else:
            restore(resume, outcome, self._server, grid, stop)
        while outcome.rounds < self._config.num_rounds and not stop.exhausted:
            server_round = outcome.rounds + 1
            with self._telling(server_round):
                self._train(server_round, grid)
                if self._config.clients.fraction_evaluate > 0:
                    self._evaluate_on_clients(server_round, grid)
                self._evaluate(server_round)
                self._report_traffic(server_round)
            outcome.rounds = server_round
            stop.take_in(outcome.headline(stopping.metric))
            last = server_round == self._config.num_rounds or stop.exhausted
            if last or signals.received() or keeper.is_due(server_round):
                keeper.save(server_round, partial(take, outcome, self._server, grid, stop))
            signals.obey()
        outcome.stopped_early = outcome.rounds < self._config.num_rounds

    @contextmanager
    def _telling(self, server_round: int) -> Iterator[None]:
        """Gather a round's report and tell it, also of a round that breaks off."""
        self._report = RoundReport(server_round)
        try:
            yield
        finally:
            self._listener.round(self._report)

    def _report_faults(self) -> None:
        kind = self._config.clients.byzantine.kind
        self._report.failures += [
            Failure(0, "byzantine", client, kind) for client in byzantine_clients(self._config)
        ]

    def _report_traffic(self, server_round: int) -> None:
        if self._config.strategy.sends_weights:
            for name, value in (("bytes_down", self._bytes_down), ("bytes_up", self._bytes_up)):
                self._measured(server_round, "global", "train", None, name, value)
        self._bytes_down = self._bytes_up = 0

    def _measured(
        self,
        server_round: int,
        model: str,
        split: str,
        client: int | None,
        metric: str,
        value: float,
        subset: str = "all",
    ) -> None:
        self._report.measurements.append(
            Measurement(server_round, model, split, subset, client, metric, value)
        )

    def _train(self, server_round: int, grid: CohortGrid) -> None:
        config, model = self._config, self.outcome.weights
        cohort = draw_cohort(config, "cohort", config.clients.fraction_train, server_round)
        with self._timed("train"):
            orders = self._server.instruct(server_round, model, cohort)
            replies = self._exchange(server_round, MessageType.TRAIN, orders, grid, cohort)
        with self._timed("aggregate"), letting_go():
            usable = self._guard(
                server_round, "train", replies, partial(training_problem, model=model)
            )
            self._require(server_round, len(usable))
            updates = [unpack_update(reply, server_round) for reply in usable]
            self._combine(server_round, Updates(self._colluded(server_round, updates, orders)))

    def _colluded(
        self, server_round: int, updates: list[Update], orders: Mapping[int, Order]
    ) -> list[Update]:
        """Let faulty clients agree on what they send, and guard that as any reply."""
        model, kept = self.outcome.weights, []
        # Nothing goes wrong with who stands in for everybody.
        own = [update for update in updates if not orders[update.client].examples_of]
        agreed = collude(self._config, self._attack, server_round, model, own)
        changed = {
            after.client: after for after, u in zip(agreed, own, strict=True) if after is not u
        }
        for before in updates:
            update = changed.get(before.client, before)
            problem = None if update is before else weights_problem(update.weights, model)
            if problem:
                self._report.failures.append(Failure(server_round, "train", update.client, problem))
            else:
                kept.append(update)
        self._require(server_round, len(kept))
        return kept

    def _combine(self, server_round: int, updates: Updates) -> None:
        before = self.outcome.weights
        combined = self._server.combine(server_round, before, updates)
        if combined is not before:
            after = restore_dtypes(combined, before)
            for name in self._evaluation.frozen:
                after[name] = before[name]  # a mean of equal numbers is not always that number
            problem = weights_problem(after, before)
            if problem:
                kind = DivergedError if problem.endswith(NOT_FINITE) else FedexpError
                raise kind(f"round {server_round}: the aggregate is unusable: {problem}")
            self.outcome.weights = after
        loss = self._server.loss(updates)
        if loss is not None:
            self._measured(server_round, "local", "train", None, "loss", loss)

    def _evaluate_on_clients(self, server_round: int, grid: CohortGrid) -> None:
        config, outcome = self._config, self.outcome
        fraction = config.clients.fraction_evaluate
        cohort = draw_cohort(config, "evaluate_cohort", fraction, server_round)
        with self._timed("client_evaluate"):
            models = self._server.models(outcome.weights)
            shared = Order(models[None]) if None in models else None
            orders = {k: Order(models[k]) if k in models or not shared else shared for k in cohort}
            replies = self._exchange(server_round, MessageType.EVALUATE, orders, grid, cohort)
        usable = self._guard(server_round, "client_evaluate", replies, evaluation_problem)
        weighty = [reply for reply in usable if metrics_of(reply)[NUM_EXAMPLES]]
        outcome.reported = {reply.metadata.src_node_id for reply in weighty}
        if weighty:  # else no client of the cohort holds a test example
            self._report_clients(server_round, models, weighty)

    def _report_clients(
        self, server_round: int, models: Mapping[int | None, Weights], replies: list[Message]
    ) -> None:
        """Report what each client measured on its own share of the test examples, and the mean."""
        found: dict[str, list[float]] = {}
        for reply in replies:
            client = reply.metadata.src_node_id
            numbers = {k: v for k, v in metrics_of(reply).items() if isinstance(v, float)}
            self.outcome.own[client] = numbers
            for name, value in numbers.items():
                found.setdefault(name, []).append(value)
                model = "local" if client in models else "global"
                self._measured(server_round, model, "client_test", client, name, value)
        counts = [_count(reply) for reply in replies]
        for name, values in found.items():
            if len(values) == len(replies):
                mean = weighted_mean(values, counts)
                model = "global" if None in models else "local"
                self._measured(server_round, model, "client_test", None, name, mean)

    def _exchange(
        self,
        server_round: int,
        kind: str,
        orders: Mapping[int, Order],
        grid: CohortGrid,
        cohort: list[int],
    ) -> list[Message]:
        contents: dict[int, RecordDict] = {}
        for order in orders.values():
            if id(order) not in contents:
                contents[id(order)] = pack_order(order, server_round)
        messages = [
            Message(contents[id(order)], dst_node_id=client, message_type=kind)
            for client, order in orders.items()
        ]
        grid.cohort = cohort
        grid.on_reply = lambda done: self._listener.progress(
            server_round, kind, done, len(messages)
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
        self._report.failures += [
            Failure(server_round, phase, client, reason) for client, reason in failures.items()
        ]
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
        outcome, before = self.outcome, self.outcome.models
        with self._timed("evaluate"):
            outcome.models = self._server.models(outcome.weights)
            fresh: dict[int | None, Scores] = {}
            scored: dict[int, Scores] = {}  # clients that share a model share its scores
            for owner, weights in outcome.models.items():
                if owner is None or weights is not before.get(owner):
                    if id(weights) not in scored:
                        scored[id(weights)] = self._evaluation.scores(weights)
                    fresh[owner] = scored[id(weights)]
        outcome.scores.update(fresh)
        for owner, subsets in fresh.items():
            model = "global" if owner is None else "local"
            for subset, metrics in subsets.items():
                for name, value in metrics.items():
                    self._measured(server_round, model, "test", owner, name, value, subset)
        accuracy = outcome.headline("accuracy")
        if accuracy > outcome.best_accuracy:
            outcome.best_round, outcome.best_accuracy = server_round, accuracy
        self._report.headline = {m: outcome.headline(m) for m in self._config.measured}
        self._report.local = None not in outcome.models

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._report.seconds[phase] = time.perf_counter() - start


def _count(reply: Message) -> int:
    count = metrics_of(reply)[NUM_EXAMPLES]
    assert isinstance(count, int | float)
    return int(count)
