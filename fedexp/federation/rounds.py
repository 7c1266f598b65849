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
from typing import Any, TypeVar

from flwr.app import Message, MessageType

from fedexp.config.schema import Config
from fedexp.core import signals
from fedexp.core.options import DivergedError, FedexpError
from fedexp.core.roles import Order, Server, Update, Updates
from fedexp.core.weights import Weights, named, restore_dtypes
from fedexp.federation.client_tests import in_place_of_a_test_set, rows_of
from fedexp.federation.cohort import draw_cohort
from fedexp.federation.evaluation import NodeEvaluation, ServerEvaluation
from fedexp.federation.events import Failure, Listener, Measurement, RoundReport
from fedexp.federation.exchange import Found, messages_of, read_each
from fedexp.federation.faults import byzantine_clients, collude
from fedexp.federation.gathering import Gathering
from fedexp.federation.guards import (
    Gate,
    Holdings,
    Tested,
    form_problem,
    letting_go,
)
from fedexp.federation.outcome import Outcome, Patience
from fedexp.federation.overflow import NOT_FINITE, size_problem
from fedexp.federation.personal import PersonalModels, kept_entries
from fedexp.federation.scoring import Row, score
from fedexp.federation.snapshot import Keeper, restore, take
from fedexp.flower.app import PERSONALISE
from fedexp.flower.grid import CohortGrid
from fedexp.flower.messages import num_bytes

Read = TypeVar("Read", Update, Tested, tuple[int, Weights])

_KINDS = {
    "train": MessageType.TRAIN,
    "client_evaluate": MessageType.EVALUATE,
    PERSONALISE: f"query.{PERSONALISE}",
}
"""Flower's word for what clients are asked in a phase."""


class RoundLoop:
    """One experiment's rounds; :meth:`run` is the ServerApp's body.

    Args:
        config: The experiment.
        server: The server's side of the strategy.
        evaluation: Tests models.
        listener: Is told of every round.
        holdings: How many examples each client holds, where that is known.
    """

    def __init__(
        self,
        config: Config,
        server: Server,
        evaluation: ServerEvaluation | NodeEvaluation,
        listener: Listener,
        holdings: Holdings | None = None,
    ) -> None:
        self._config, self._server, self._evaluation = config, server, evaluation
        self._listener = listener
        self._kept = kept_entries(config, evaluation)
        self._gate = Gate(config, evaluation.parameters, holdings, self._kept, server.problem)
        self._by_nodes = isinstance(evaluation, NodeEvaluation)
        listed = evaluation.listed  # a range knows at once whether it has a number; a list does not
        self._listed = listed if isinstance(listed, range) else frozenset(listed)
        self._personal = PersonalModels(config, server, evaluation, by_clients=self._by_nodes)
        self._gathering = Gathering(config, server, self._gate, holdings, self._kept)
        self._attack = config.clients.byzantine.attack()
        self._bytes_down = self._bytes_up = 0
        self._tested: list[Tested] = []
        self._report = RoundReport(0)
        start, judged_by = evaluation.initial, config.task.headline
        self.outcome = Outcome(start, start, judged_by, evaluation.largest_loss)

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
            FedexpError: If fewer clients of a round than there must be return what can be used.
        """
        signals.obey()
        outcome, stopping = self.outcome, self._config.stop
        keeper, stop = keeper or Keeper(), Patience(stopping)
        if resume is None:
            with self._telling(0):
                self._report.seconds["startup"] = startup
                self._report_faults()
                if self._by_nodes:
                    self._evaluate_on_clients(0, grid)
                self._evaluate(0)
            stop.take_in(outcome.judged(stopping.metric))
        else:
            restore(resume, outcome, self._server, grid, stop, self._personal.now)
        while outcome.rounds < self._config.num_rounds and not stop.exhausted:
            server_round = outcome.rounds + 1
            with self._telling(server_round):
                self._train(server_round, grid)
                if due := self._config.tests_after(server_round):
                    if self._by_nodes or self._config.clients.fraction_evaluate > 0:
                        self._evaluate_on_clients(server_round, grid)
                    self._renew(server_round, grid)
                    self._evaluate(server_round)
                self._report_traffic(server_round)
            outcome.rounds = server_round
            if due:
                stop.take_in(outcome.judged(stopping.metric))
            last = server_round == self._config.num_rounds or stop.exhausted
            if last or signals.received() or keeper.is_due(server_round):
                parts = (outcome, self._server, grid, stop, self._personal.now)
                keeper.save(server_round, partial(take, *parts, tested=due))
            signals.obey()
        outcome.stopped_early = outcome.rounds < self._config.num_rounds
        outcome.newcomers = self._personal.of_newcomers(outcome, partial(self._made, grid))
        outcome.tuned = self._personal.tuned(outcome, partial(self._made, grid))

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
        if config.strategy.personalised:
            self.outcome.trained |= set(cohort)
        with self._timed("train"):
            orders = self._server.instruct(server_round, model, cohort)
            for way in self._gathering.ways(server_round, model, orders, grid):
                self._bytes_down = 0
                found = self._exchange(server_round, "train", orders, grid, cohort, way.read)
            self._bytes_up = way.num_bytes
        # Replies are read while others are still on their way.
        self._report.seconds["train"] -= found.seconds
        with self._timed("aggregate", found.seconds), letting_go():
            updates = self._usable(server_round, found, config.clients.min_success)
            kept = self._colluded(server_round, updates, orders)
            grid.take_back(set(orders) - {update.client for update in kept})
            self._require(server_round, len(kept), len(orders))
            if kept:
                self._combine(server_round, way.updates(kept))

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
            problem = None if update is before else self._problem(update.weights)
            if problem:
                self._report.failures.append(Failure(server_round, "train", update.client, problem))
            else:
                kept.append(update)
        return kept

    def _problem(self, weights: Weights) -> str | None:
        model, squared = self.outcome.weights, self._config.strategy.squares_weights
        return form_problem(weights, model) or size_problem(weights, model, squared=squared)

    def _combine(self, server_round: int, updates: Updates) -> None:
        before = self.outcome.weights
        combined = self._server.combine(server_round, before, updates)
        if not isinstance(combined, Mapping):
            raise FedexpError(
                f"round {server_round}: combine() must return weights by name, got {combined!r}"
            )
        if combined is not before:
            after = restore_dtypes(combined, before)
            for name in (*self._evaluation.frozen, *self._kept):
                after[name] = before[name]  # a mean of equal numbers is not always that number
            problem = form_problem(after, before)
            if problem:
                kind = DivergedError if problem.endswith(NOT_FINITE) else FedexpError
                raise kind(f"round {server_round}: the aggregate is unusable: {problem}")
            self.outcome.weights = after
        loss = self._server.loss(updates)
        if loss is not None:
            self._measured(server_round, "local", "train", None, "loss", loss)

    def _evaluate_on_clients(self, server_round: int, grid: CohortGrid) -> None:
        config, outcome = self._config, self.outcome
        fraction = 1.0 if self._by_nodes else config.clients.fraction_evaluate
        cohort = draw_cohort(config, "evaluate_cohort", fraction, server_round)
        with self._timed("client_evaluate"):
            orders = self._personal.orders(outcome.weights, cohort)
            found = self._exchange(
                server_round, "client_evaluate", orders, grid, cohort, self._gate.tested
            )
        # A client without test examples has no say.
        tested = self._usable(server_round, found)
        self._tested = [one for one in tested if one.num_examples]
        outcome.reported = {one.client for one in self._tested}
        listed = self._listed
        outcome.own |= {k.client: dict(k.numbers) for k in self._tested if k.client in listed}
        for row in rows_of(self._tested, self._personal.now(outcome)):
            self._measured(server_round, *row)

    def _renew(self, server_round: int, grid: CohortGrid) -> None:
        """Have clients make the models that they are tested with, where the strategy has them."""
        if self._config.strategy.personalised:
            made = partial(self._made, grid)
            with self._timed("personalise"):
                self._personal.renew(server_round, self.outcome, made)

    def _made(
        self, grid: CohortGrid, server_round: int, orders: Mapping[int, Order]
    ) -> list[tuple[int, Weights]]:
        """Return the models that clients make for their tests, less those that cannot be used."""
        read = partial(self._gate.personal, model=self.outcome.weights)
        found = self._exchange(server_round, PERSONALISE, orders, grid, sorted(orders), read)
        return self._usable(server_round, found)

    def _exchange(
        self,
        server_round: int,
        phase: str,
        orders: Mapping[int, Order],
        grid: CohortGrid,
        cohort: list[int],
        read: Callable[[Message], Read],
    ) -> Found[Read]:
        """Ask clients, and read each reply as it comes in."""
        kind = _KINDS[phase]
        messages = messages_of(orders, server_round, kind, self._kept)
        grid.cohort = cohort
        grid.on_reply = lambda done: self._listener.progress(
            server_round, kind, done, len(messages)
        )
        found = read_each(grid.replies(messages), read, server_round, phase)
        # The rest no deployment would send, and the initial model has no round.
        if kind in (MessageType.TRAIN, MessageType.EVALUATE) and server_round:
            self._bytes_down += num_bytes(messages)
        return found

    def _usable(self, server_round: int, found: Found[Read], fewest: int = 1) -> list[Read]:
        """Report replies that cannot be used; one must be left unless none need be."""
        failures = found.failures
        self._report.failures += failures
        if not found.usable and fewest:
            why = "no client replied"
            if failures:
                why = f"client {failures[0].client}: {failures[0].reason}"
            kind = DivergedError if self.outcome.has_diverged else FedexpError
            told = f"all {len(failures)} clients failed to {found.phase}; {why}"
            raise kind(f"round {server_round}: {told}")
        return found.usable

    def _require(self, server_round: int, num_replies: int, num_asked: int) -> None:
        strategy, fewest = self._config.strategy, self._config.clients.min_success
        if num_replies < min(fewest, num_asked):
            raise FedexpError(
                f"round {server_round}: {num_replies} of {num_asked} clients sent what can be used, "
                f"fewer than clients.min_success={fewest}: see failures.csv, or lower it"
            )
        if 0 < num_replies < strategy.min_clients:
            raise FedexpError(
                f"round {server_round}: strategy={strategy.name} needs {strategy.min_clients} replies "
                f"({strategy.formula}), got {num_replies}: a larger clients.fraction_train or "
                "clients.num, or a smaller clients.dropout"
            )

    def _evaluate(self, server_round: int) -> None:
        outcome, config = self.outcome, self._config
        with self._timed("evaluate"):
            rows = self._scored(server_round)
        for row in rows:
            self._measured(server_round, *row)
        outcome.choose(server_round, config.stop.metric)
        self._report.headline = {name: outcome.headline(name) for name in config.measured}
        self._report.local = None not in outcome.models
        if outcome.val:
            self._report.judged = {name: outcome.judged(name) for name in config.measured}
        if config.save_every and server_round and server_round % config.save_every == 0:
            self._report.weights = named(outcome.models, outcome.initial)

    def _scored(self, server_round: int) -> list[Row]:
        models = self._personal.now(self.outcome)
        if isinstance(self._evaluation, ServerEvaluation):
            return score(self._evaluation, self.outcome, models)
        return in_place_of_a_test_set(server_round, self._tested, models, self.outcome)

    @contextmanager
    def _timed(self, phase: str, before: float = 0.0) -> Iterator[None]:
        start = time.perf_counter() - before
        yield
        self._report.seconds[phase] = time.perf_counter() - start
