"""The round loop, on clients of one weight; what it makes of them is told to a listener."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from support.helpers import (
    Answer,
    FirstWeight,
    Floats,
    Recorder,
    arrays,
    config,
    evaluated,
    played_by,
    same_weights,
    scripted_app,
    trained,
    values,
    weights_of,
)

from fedexp import attacks
from fedexp.attacks import Attack
from fedexp.backends.inline import InlineGrid
from fedexp.config.clients import ByzantineConfig, ClientsConfig
from fedexp.config.schema import Config, StopConfig
from fedexp.core.options import DivergedError, FedexpError
from fedexp.core.roles import Job, Order, Server, Updates
from fedexp.core.weights import Weights
from fedexp.federation.cohort import draw_cohort
from fedexp.federation.events import Failure, Listener, RoundReport
from fedexp.federation.faults import byzantine_clients
from fedexp.federation.outcome import Outcome
from fedexp.federation.rounds import RoundLoop
from fedexp.federation.servers import build_server
from fedexp.strategies import Strategy
from fedexp.strategies.centralized import Centralized
from fedexp.strategies.fedavg import FedAvg
from fedexp.strategies.fedmedian import FedMedian
from fedexp.strategies.krum import Krum
from fedexp.strategies.local_only import LocalOnly
from fedexp.strategies.scaffold import Scaffold

# --- the loop on clients of one weight ------------------------------------------------------------


class Watched(InlineGrid):
    """Notes which clients were called, in which order, and how many contents they were sent."""

    def __init__(self, train: Answer, evaluate: Answer | None, num: int) -> None:
        super().__init__(scripted_app(train, evaluate), num)
        self.calls: list[tuple[str, list[int]]] = []
        self.contents: list[int] = []

    def exchange(self, messages: list[Message]) -> Iterator[Message]:
        clients = [message.metadata.dst_node_id for message in messages]
        self.calls.append((messages[0].metadata.message_type, clients))
        self.contents.append(len({id(message.content) for message in messages}))
        return super().exchange(messages)


class Loop:
    """One run of the round loop; the model is a single weight that starts at 0."""

    def __init__(
        self,
        experiment: Config,
        train: Answer,
        evaluate: Answer | None = None,
        *,
        server: Server | None = None,
        evaluation: FirstWeight | None = None,
        listener: Listener | None = None,
    ) -> None:
        self.told = Recorder()
        self.grid = Watched(train, evaluate, experiment.clients.num)
        self.evaluation = evaluation or FirstWeight(0.0)
        server = server or build_server(experiment, self.evaluation)
        self._loop = RoundLoop(experiment, server, self.evaluation, listener or self.told)

    def run(self, startup: float = 0.0) -> Outcome:
        self._loop.run(self.grid, startup)
        return self.outcome

    @property
    def outcome(self) -> Outcome:
        return self._loop.outcome

    def values(self, **wanted: Any) -> list[float]:
        return [row.value for row in self.told.rows(**wanted)]

    @property
    def last_round_measured(self) -> int:
        return max(row.round for row in self.told.measurements)


def _add(client: int, weight: Floats) -> RecordDict:
    """Client k adds k + 1, with k + 1 examples: the mean of three is (1*1 + 2*2 + 3*3) / 6."""
    return trained(weight[0] + client + 1, num_examples=client + 1, loss=client / 2)


MEAN = 14 / 6
TRAFFIC = ("bytes_down", "bytes_up")


def test_rounds_follow_the_weighted_mean() -> None:
    loop = Loop(config(rounds=2), _add)
    outcome = loop.run()
    assert [seen[0] for seen in loop.evaluation.seen] == pytest.approx([0, MEAN, 2 * MEAN])
    assert values(outcome.weights) == pytest.approx([2 * MEAN])
    assert (outcome.rounds, outcome.stopped_early) == (2, False)
    assert outcome.best_round == 2
    assert outcome.best_value == pytest.approx(2 * MEAN)
    assert loop.grid.calls == [("train", [0, 1, 2])] * 2
    assert loop.grid.contents == [1, 1]  # one copy of the model on its way to everybody
    assert loop.told.failures == []
    headline = {"model": "global", "split": "test", "subset": "all", "client": None}
    accuracy = loop.told.rows(**headline, metric="accuracy")
    assert [row.round for row in accuracy] == [0, 1, 2]
    assert [row.value for row in accuracy] == pytest.approx([0, MEAN, 2 * MEAN])
    found = loop.values(**headline, metric="loss")
    assert found == pytest.approx([10, 10 - MEAN, 10 - 2 * MEAN])
    # Training loss: (1*0 + 2*0.5 + 3*1) / 6.
    losses = loop.told.rows(split="train", metric="loss")
    assert [(row.round, row.model, row.client) for row in losses] == [
        (1, "local", None),
        (2, "local", None),
    ]
    assert [row.value for row in losses] == pytest.approx([4 / 6, 4 / 6])
    # One float32 to each of three clients and back.
    traffic = [row for row in loop.told.measurements if row.metric in TRAFFIC]
    assert [(row.round, row.model, row.split, row.metric, row.value) for row in traffic] == [
        (server_round, "global", "train", name, 12) for server_round in (1, 2) for name in TRAFFIC
    ]


def test_clients_that_fail_send_nothing_and_evaluation_counts() -> None:
    def answer(client: int, weight: Floats) -> RecordDict:
        if client == 1:
            raise ValueError("no")
        return _add(client, weight)

    clients = ClientsConfig(num=3, fraction_evaluate=1.0)
    loop = Loop(config(rounds=1, clients=clients), answer, lambda _, w: evaluated(1, 0.5, 0.5))
    loop.run()
    # Down: three to train, three to evaluate; up: two trained models.
    assert [loop.values(metric=name) for name in TRAFFIC] == [[24], [8]]


def test_further_arrays_count_as_traffic() -> None:
    def answer(client: int, weight: Floats) -> RecordDict:
        reply = _add(client, weight)
        reply["control"] = arrays(1.0)
        return reply

    loop = Loop(config(rounds=1, strategy=Scaffold()), answer)
    loop.run()
    # A weight and its control variate to each of three clients and back.
    assert [loop.values(metric=name) for name in TRAFFIC] == [[24], [24]]


@pytest.mark.parametrize("strategy", [LocalOnly(), Centralized()], ids=lambda s: s.name)
def test_isolated_clients_send_nothing_nor_does_the_union(strategy: Any) -> None:
    loop = Loop(config(rounds=1, strategy=strategy), _add)
    loop.run()
    assert [loop.values(metric=name) for name in TRAFFIC] == [[], []]


def test_only_the_cohort_is_called() -> None:
    clients = ClientsConfig(num=20, fraction_train=0.2, fraction_evaluate=0.1)
    experiment = config(rounds=3, clients=clients)
    loop = Loop(experiment, _add, lambda _, w: evaluated(1, 0.5, 0.5))
    loop.run()
    expected = []
    for server_round in (1, 2, 3):
        expected.append(("train", draw_cohort(experiment, "cohort", 0.2, server_round)))
        evaluators = draw_cohort(experiment, "evaluate_cohort", 0.1, server_round)
        expected.append(("evaluate", evaluators))
    assert loop.grid.calls == expected
    assert [len(clients) for _, clients in expected] == [4, 2] * 3
    assert loop.outcome.reported == set(expected[-1][1])


def test_one_client_is_its_own_average() -> None:
    experiment = config(rounds=2, clients=ClientsConfig(num=1))
    assert values(Loop(experiment, _add).run().weights) == [2.0]


def _raise(client: int, weight: Floats) -> RecordDict:
    if client == 1:
        raise OSError("out of memory")
    return _add(client, weight)


def _nan(client: int, weight: Floats) -> RecordDict:
    return trained(float("nan"), num_examples=2) if client == 1 else _add(client, weight)


def _infinite_loss(client: int, weight: Floats) -> RecordDict:
    if client == 1:
        return trained(5.0, num_examples=2, loss=float("inf"))
    return _add(client, weight)


def _other_keys(client: int, weight: Floats) -> RecordDict:
    reply = _add(client, weight)
    if client == 1:
        reply["arrays"] = ArrayRecord({"v": reply.array_records["arrays"]["w"]})
    return reply


def _no_arrays(client: int, weight: Floats) -> RecordDict:
    reply = _add(client, weight)
    if client == 1:
        del reply["arrays"]
    return reply


def _no_metrics(client: int, weight: Floats) -> RecordDict:
    reply = _add(client, weight)
    if client == 1:
        del reply["metrics"]
    return reply


def _no_examples(client: int, weight: Floats) -> RecordDict:
    return trained(5.0, num_examples=0) if client == 1 else _add(client, weight)


def _other_shape(client: int, weight: Floats) -> RecordDict:
    return trained(5.0, 6.0, num_examples=2) if client == 1 else _add(client, weight)


@pytest.mark.parametrize(
    ("train", "reason"),
    [
        (_raise, "OSError: out of memory"),
        (_nan, "parameter w holds NaN or infinity"),
        (_infinite_loss, "metric train_loss is inf"),
        (_other_keys, "other parameters than the model's (missing ['w'], unexpected ['v'])"),
        (_no_examples, "num-examples must be a whole number >= 1, got 0"),
        (_other_shape, "parameter w is float32(2,), the model's is float32(1,)"),
        (_no_arrays, "arrays"),
        (_no_metrics, "metrics"),
    ],
)
def test_a_bad_reply_is_recorded_and_left_out(train: Answer, reason: str) -> None:
    loop = Loop(config(rounds=1), train)
    # Clients 0 and 2 are left: (1*1 + 3*3) / 4.
    assert values(loop.run().weights) == [2.5]
    (failure,) = loop.told.failures
    assert failure[:3] == (1, "train", 1)
    assert reason in failure.reason
    assert [report.num_failures for report in loop.told.reports] == [0, 1]


def test_a_round_in_which_every_client_fails_ends_the_run() -> None:
    def fail_later(client: int, weight: Floats) -> RecordDict:
        if weight[0] > 0:
            raise OSError(f"disk of client {client} is full")
        return _add(client, weight)

    loop = Loop(config(rounds=5), fail_later)
    pattern = (
        r"^round 2: all 3 clients failed to train; client 0: OSError: disk of client 0 is full$"
    )
    with pytest.raises(FedexpError, match=pattern):
        loop.run()
    assert [row[:3] for row in loop.told.failures] == [(2, "train", k) for k in range(3)]
    assert loop.last_round_measured == 1
    assert loop.outcome.rounds == 1
    # The round that broke off was told as far as it went.
    assert [report.round for report in loop.told.reports] == [0, 1, 2]
    broken = loop.told.reports[2]
    assert (broken.num_failures, broken.measurements, broken.headline) == (3, [], {})
    assert list(broken.seconds) == ["train"]


@pytest.mark.parametrize(("weight", "diverged"), [(-1e7, True), (-1e3, False)])
def test_a_run_has_diverged_where_nobody_can_train_a_model_whose_loss_has_no_bounds(
    weight: float, diverged: bool
) -> None:
    def fail_later(client: int, before: Floats) -> RecordDict:
        return trained(math.nan if before[0] else weight, num_examples=1)

    loop = Loop(config(rounds=5), fail_later)
    with pytest.raises(FedexpError, match=r"^round 2: all 3 clients failed to train; ") as told:
        loop.run()
    assert isinstance(told.value, DivergedError) == diverged


@pytest.mark.parametrize("strategy", [FedAvg(), FedMedian()])
def test_a_round_of_no_replies_leaves_the_model_where_none_is_needed(strategy: Strategy) -> None:
    calls: list[int] = []

    def fail_in_the_second(client: int, weight: Floats) -> RecordDict:
        calls.append(client)
        if 3 < len(calls) <= 6:
            raise OSError("disk is full")
        return trained(weight[0] + 1, num_examples=1)

    clients = ClientsConfig(num=3, min_success=0)
    loop = Loop(config(rounds=3, clients=clients, strategy=strategy), fail_in_the_second)
    outcome = loop.run()
    assert [row[:3] for row in loop.told.failures] == [(2, "train", k) for k in range(3)]
    headline = {"split": "test", "metric": "accuracy", "client": None}
    assert loop.values(**headline) == pytest.approx([0, 1, 1, 2])
    assert (outcome.rounds, values(outcome.weights)) == (3, [2.0])


def test_a_round_with_too_few_replies_for_the_strategy_ends_the_run() -> None:
    def fail(client: int, weight: Floats) -> RecordDict:
        if client == 1:
            raise OSError("disk is full")
        return _add(client, weight)

    loop = Loop(config(strategy=FedMedian()), fail)
    pattern = (
        r"^round 1: strategy=fedmedian needs 3 replies \(3 \(the median.*, got 2: a larger clien"
    )
    with pytest.raises(FedexpError, match=pattern):
        loop.run()
    assert [row[:3] for row in loop.told.failures] == [(1, "train", 1)]


def test_faulty_clients_are_recorded_before_the_first_round() -> None:
    faults = ByzantineConfig(fraction=0.67, kind="gaussian")
    experiment = config(rounds=1, clients=ClientsConfig(num=3, byzantine=faults))
    loop = Loop(experiment, _add)
    loop.run()
    wanted = [Failure(0, "byzantine", k, "gaussian") for k in byzantine_clients(experiment)]
    assert loop.told.failures == loop.told.reports[0].failures == wanted
    assert len(wanted) == 2
    assert loop.told.reports[0].num_failures == 0  # they are faulty, they did not fail


# --- servers of one's own -------------------------------------------------------------------------


def test_an_aggregate_that_overflows_ends_the_run() -> None:
    def grow(client: int, weight: Floats) -> RecordDict:
        return trained(3.3e32, num_examples=1)  # the largest number that is let in

    class Sum(Server):
        def combine(self, t: int, model: Weights, updates: Updates) -> Weights:
            return updates.mean([1e7] * len(updates))

    loop = Loop(config(rounds=1), grow, server=Sum())
    with (
        np.errstate(over="ignore"),
        pytest.raises(
            DivergedError, match="round 1: the aggregate is unusable: parameter w holds NaN"
        ),
    ):
        loop.run()
    assert values(loop.outcome.weights) == [0.0]  # the model of the round before


@pytest.mark.parametrize(
    ("combined", "reason"),
    [
        ({}, r"missing \['w'\]"),
        ({"w": np.zeros(1, np.float32), "v": np.zeros(1, np.float32)}, r"unexpected \['v'\]"),
        ({"w": np.zeros(2, np.float32)}, r"parameter w is float32\(2,\)"),
    ],
)
def test_an_aggregate_of_another_form_ends_the_run(combined: Weights, reason: str) -> None:
    class Other(Server):
        def combine(self, t: int, model: Weights, updates: Updates) -> Weights:
            return combined

    with pytest.raises(
        FedexpError, match=f"round 1: the aggregate is unusable: .*{reason}"
    ) as told:
        Loop(config(rounds=1), _add, server=Other()).run()
    assert not isinstance(told.value, DivergedError)


def test_a_server_that_returns_nothing_ends_the_run() -> None:
    class Forgetful(Server):
        def combine(self, t: int, model: Weights, updates: Updates) -> Weights:
            return None  # type: ignore[return-value]

    with pytest.raises(FedexpError, match=r"round 1: combine\(\) must return weights"):
        Loop(config(rounds=1), _add, server=Forgetful()).run()


def test_an_aggregate_gets_the_models_dtypes_again() -> None:
    class Double(Server):
        def combine(self, t: int, model: Weights, updates: Updates) -> Weights:
            return {"w": np.array([1 / 3]), "n": np.array(17.5)}

    evaluation = FirstWeight(0.0)
    evaluation.initial = {**evaluation.initial, "n": np.array(3)}

    def answer(client: int, weight: Floats) -> RecordDict:
        reply = _add(client, weight)
        record = reply.array_records["arrays"]
        record["n"] = ArrayRecord([np.array(4)])["0"]
        return reply

    outcome = Loop(config(rounds=1), answer, server=Double(), evaluation=evaluation).run()
    assert same_weights(outcome.weights, {"w": np.array([1 / 3], np.float32), "n": np.array(18)})


def test_frozen_parameters_keep_every_bit() -> None:
    frozen = np.array([0.1, 1 / 3, 1e-20, 3.3e38], np.float32)

    def answer(client: int, weight: Floats) -> RecordDict:
        reply = _add(client, weight)
        reply.array_records["arrays"]["embedding"] = ArrayRecord([frozen])["0"]
        return reply

    evaluation = FirstWeight(0.0)
    evaluation.initial = {**evaluation.initial, "embedding": frozen}

    def after_three_rounds() -> bytes:
        outcome = Loop(config(rounds=3), answer, evaluation=evaluation).run()
        assert values({"w": outcome.weights["w"]}) == pytest.approx([3 * MEAN])
        return outcome.weights["embedding"].tobytes()

    assert after_three_rounds() != frozen.tobytes()  # a mean of equal numbers is not that number
    evaluation.frozen = frozenset({"embedding"})
    assert after_three_rounds() == frozen.tobytes()


def test_clients_that_a_server_leaves_out_are_not_asked() -> None:
    class First(Server):
        def instruct(self, t: int, model: Weights, cohort: Sequence[int]) -> dict[int, Order]:
            return super().instruct(t, model, cohort[:1])

    loop = Loop(config(rounds=2), _add, server=First())
    assert values(loop.run().weights) == [2.0]
    assert loop.grid.calls == [("train", [0])] * 2
    assert loop.told.replies == [(1, "train", 1, 1), (2, "train", 1, 1)]


def test_a_server_that_asks_nobody_ends_the_run() -> None:
    class Nobody(Server):
        def instruct(self, t: int, model: Weights, cohort: Sequence[int]) -> dict[int, Order]:
            return {}

    class Quiet(InlineGrid):
        def exchange(self, messages: list[Message]) -> Iterator[Message]:
            return iter([])

    experiment, evaluation = config(rounds=1), FirstWeight(0.0)
    loop = RoundLoop(experiment, Nobody(), evaluation, Listener())
    with pytest.raises(FedexpError, match=r"^round 1: .*no client replied"):
        loop.run(Quiet(scripted_app(_add), 3))


def test_every_kind_of_order_is_packed_once() -> None:
    class Two(Server):
        def instruct(self, t: int, model: Weights, cohort: Sequence[int]) -> dict[int, Order]:
            plain, other = Order(model), Order({"w": model["w"] + 10})
            return {client: other if client == 1 else plain for client in cohort}

    loop = Loop(config(rounds=1), _add, server=Two())
    # Clients start from 0, 10 and 0: (1*1 + 2*12 + 3*3) / 6.
    assert values(loop.run().weights) == pytest.approx([34 / 6])
    assert loop.grid.contents == [2]


def test_a_server_without_a_new_model_keeps_the_one_it_had() -> None:
    class Waits(Server):
        def combine(self, t: int, model: Weights, updates: Updates) -> Weights:
            return model

    loop = Loop(config(rounds=2), _add, server=Waits())
    assert loop.run().weights is loop.evaluation.initial
    # The headline is there in every round all the same.
    assert loop.values(split="test", metric="accuracy") == [0.0, 0.0, 0.0]


def test_a_server_says_which_loss_the_round_had() -> None:
    class Own(Server):
        def loss(self, updates: Updates) -> float | None:
            return 7.0 if len(updates) == 3 else None

    loop = Loop(config(rounds=1), _add, server=Own())
    loop.run()
    assert loop.values(split="train", metric="loss") == [7.0]


def test_the_loss_of_krum_is_that_of_those_it_selects() -> None:
    # 1, 2, 3, 4 and 5: squared distances to the two nearest are 5, 2, 2, 2 and 5; the first 2 wins.
    loop = Loop(config(rounds=1, clients=ClientsConfig(num=5), strategy=Krum()), _add)
    assert values(loop.run().weights) == [2.0]
    assert loop.values(split="train", metric="loss") == [0.5]  # client 1's


def test_a_server_may_have_a_model_per_client_beside_the_global_one() -> None:
    class Beside(Server):
        def __init__(self) -> None:
            self.own = weights_of(40.0)

        def models(self, model: Weights) -> dict[int | None, Weights]:
            return {None: model, 1: self.own}

    loop = Loop(config(rounds=1), _add, server=Beside())
    outcome = loop.run()
    assert [(row.round, row.model, row.client, row.value) for row in _accuracies(loop)] == [
        (0, "global", None, 0.0),
        (0, "local", 1, 40.0),
        (1, "global", None, pytest.approx(MEAN)),  # client 1's is the same and not tested again
    ]
    assert list(outcome.models) == [None, 1]
    assert not any(report.local for report in loop.told.reports)


def test_a_client_with_a_model_of_its_own_evaluates_that() -> None:
    class Beside(Server):
        def models(self, model: Weights) -> dict[int | None, Weights]:
            return {None: model, 1: weights_of(40.0)}

    experiment = config(rounds=1, clients=ClientsConfig(num=3, fraction_evaluate=1.0))
    loop = Loop(experiment, _add, lambda _, w: evaluated(1, float(w[0]), 0.5), server=Beside())
    loop.run()
    rows = loop.told.rows(split="client_test", metric="loss")
    found = {row.client: (row.model, row.value) for row in rows if row.client is not None}
    everybodys = ("global", pytest.approx(MEAN))
    assert found == {0: everybodys, 1: ("local", 40.0), 2: everybodys}


def _accuracies(loop: Loop) -> list[Any]:
    return loop.told.rows(split="test", metric="accuracy")


# --- faulty clients that collude ------------------------------------------------------------------


def _colluding(kind: str = "little_is_enough", **changes: Any) -> Config:
    """Return an experiment of five clients of which two are faulty."""
    faults = ByzantineConfig(fraction=0.4, kind=kind, scale=2.0)
    return config(rounds=1, clients=ClientsConfig(num=5, byzantine=faults), **changes)


class Keeps(Server):
    """Keeps what clients sent."""

    def combine(self, t: int, model: Weights, updates: Updates) -> Weights:
        self.seen = updates
        return super().combine(t, model, updates)


def test_faulty_clients_agree_on_what_they_send_and_no_other_does() -> None:
    experiment, server = _colluding(), Keeps()
    faulty = byzantine_clients(experiment)
    Loop(experiment, _add, server=server).run()
    # All five would send 1, 2, 3, 4 and 5: mean 3, standard deviation sqrt(2), 3 - 2 sqrt(2).
    agreed = np.float32(3 - 2 * np.sqrt(2))
    sent = {update.client: values(update.weights)[0] for update in server.seen}
    assert sent == {k: agreed if k in faulty else k + 1 for k in range(5)}
    assert len(faulty) == 2
    # Examples and losses stay theirs.
    assert [(u.num_examples, u.loss) for u in server.seen] == [(k + 1, k / 2) for k in range(5)]


@contextmanager
def _registered(page: type[Attack]) -> Iterator[None]:
    attacks.register(page)
    try:
        yield
    finally:
        attacks.REGISTRY.forget(page().name)


@dataclass(frozen=True)
class Overreaching(Attack):
    """Changes what everybody sends, faulty or not; NaN if it is strong."""

    name: str = "overreaching"

    def collude(
        self, model: Weights, updates: Updates, faulty: Collection[int], rng: np.random.Generator
    ) -> dict[int, Weights]:
        value = float("nan") if self.scale > 2 else 50.0
        return {update.client: weights_of(value) for update in updates}


def test_an_attack_cannot_speak_for_honest_clients() -> None:
    with _registered(Overreaching):
        experiment, server = _colluding("overreaching"), Keeps()
        Loop(experiment, _add, server=server).run()
    faulty = byzantine_clients(experiment)
    sent = {update.client: values(update.weights)[0] for update in server.seen}
    assert sent == {k: 50.0 if k in faulty else k + 1 for k in range(5)}


def test_what_colluders_agree_on_is_guarded_as_any_reply() -> None:
    strong = ByzantineConfig(fraction=0.4, kind="overreaching", scale=3.0)
    experiment = config(rounds=1, clients=ClientsConfig(num=5, byzantine=strong))
    with _registered(Overreaching):
        server = Keeps()
        loop = Loop(experiment, _add, server=server)
        loop.run()
    faulty = byzantine_clients(experiment)
    assert [update.client for update in server.seen] == [k for k in range(5) if k not in faulty]
    assert loop.told.reports[1].failures == [
        Failure(1, "train", k, "parameter w holds NaN or infinity") for k in faulty
    ]


def test_too_few_may_be_left_of_colluders() -> None:
    strong = ByzantineConfig(fraction=0.67, kind="overreaching", scale=3.0)
    clients = ClientsConfig(num=3, byzantine=strong)
    with (
        _registered(Overreaching),
        pytest.raises(FedexpError, match=r"^round 1: .* needs 3 replies .* got 1"),
    ):
        Loop(config(rounds=1, clients=clients, strategy=FedMedian()), _add).run()


def test_nobody_colludes_against_the_upper_reference() -> None:
    with _registered(Overreaching):
        experiments = [
            _colluding("overreaching", strategy=Centralized(), seed=seed) for seed in range(8)
        ]
        # Client 0 stands in for everybody; with some seeds it is a faulty one.
        assert {0 in byzantine_clients(experiment) for experiment in experiments} == {True, False}
        found = [values(Loop(experiment, _add).run().weights) for experiment in experiments]
    assert found == [[1.0]] * 8


# --- evaluation on clients ------------------------------------------------------------------------


def test_client_evaluations_are_recorded_and_averaged_by_examples() -> None:
    answers = [evaluated(1, 4.0, 1.0), evaluated(0, 99.0, 0.0), evaluated(3, 2.0, 0.5)]
    experiment = config(rounds=1, clients=ClientsConfig(num=3, fraction_evaluate=1.0))
    loop = Loop(experiment, _add, lambda client, _: answers[client])
    outcome = loop.run()
    rows = loop.told.rows(split="client_test")
    assert {(row.round, row.model, row.subset) for row in rows} == {(1, "global", "all")}
    assert [(row.client, row.metric, row.value) for row in rows] == [
        (0, "loss", 4.0),
        (0, "accuracy", 1.0),
        (2, "loss", 2.0),
        (2, "accuracy", 0.5),
        (None, "loss", 2.5),  # (1*4 + 3*2) / 4; client 1 holds no image and has no say
        (None, "accuracy", 0.625),
    ]
    assert outcome.reported == {0, 2}
    assert outcome.own == {
        0: {"loss": 4.0, "accuracy": 1.0},
        2: {"loss": 2.0, "accuracy": 0.5},
    }


def test_a_client_that_reports_other_metrics_than_asked_is_left_out() -> None:
    def answer(client: int, _: Floats) -> RecordDict:
        reply = evaluated(1, float(client), 0.5)
        if client == 1:
            reply.metric_records["metrics"]["extra"] = float(client)
        return reply

    experiment = config(rounds=1, clients=ClientsConfig(num=3, fraction_evaluate=1.0))
    loop = Loop(experiment, _add, answer)
    loop.run()
    assert [row[:3] for row in loop.told.failures] == [(1, "client_evaluate", 1)]
    assert loop.told.rows(metric="extra") == []
    # (0 + 2) / 2
    assert loop.values(split="client_test", metric="loss", client=None) == [1.0]


def test_clients_evaluate_the_model_of_the_round() -> None:
    experiment = config(rounds=2, clients=ClientsConfig(num=3, fraction_evaluate=1.0))
    loop = Loop(experiment, _add, lambda _, w: evaluated(1, float(w[0]), 0.5))
    loop.run()
    means = loop.values(split="client_test", metric="loss", client=None)
    assert means == pytest.approx([MEAN, 2 * MEAN])
    assert loop.grid.contents == [1] * 4


def test_no_client_with_a_test_image_means_no_rows() -> None:
    experiment = config(rounds=1, clients=ClientsConfig(num=3, fraction_evaluate=1.0))
    loop = Loop(experiment, _add, lambda *_: evaluated(0, 0.0, 0.0))
    outcome = loop.run()
    assert outcome.rounds == 1
    assert outcome.reported == set()
    assert loop.told.rows(split="client_test") == []
    assert loop.told.failures == []


def test_an_evaluation_that_is_nan_is_recorded_and_left_out() -> None:
    answers = [evaluated(1, 4.0, 1.0), evaluated(9, float("nan"), 0.5), evaluated(1, 2.0, 0.5)]
    experiment = config(rounds=1, clients=ClientsConfig(num=3, fraction_evaluate=1.0))
    loop = Loop(experiment, _add, lambda client, _: answers[client])
    loop.run()
    assert loop.told.failures == [(1, "client_evaluate", 1, "metric loss is nan")]
    # (4 + 2) / 2
    assert loop.values(split="client_test", client=None, metric="loss") == [3.0]


# --- local models ---------------------------------------------------------------------------------


def test_local_models_are_evaluated_one_by_one() -> None:
    loop = Loop(config(rounds=2, strategy=LocalOnly()), _add)
    outcome = loop.run()
    # After two rounds client k has added k + 1 twice.
    assert {k: values(w) for k, w in outcome.models.items()} == {0: [2.0], 1: [4.0], 2: [6.0]}
    assert outcome.weights is loop.evaluation.initial
    assert outcome.headline("accuracy") == 4.0
    assert outcome.headline("loss") == 6.0
    rows = _accuracies(loop)
    assert {row.model for row in rows} == {"local"}
    assert [(row.round, row.client, row.value) for row in rows] == [
        (server_round, k, server_round * (k + 1)) for server_round in (0, 1, 2) for k in range(3)
    ]
    assert [report.headline for report in loop.told.reports] == [
        {"accuracy": accuracy, "loss": 10 - accuracy} for accuracy in (0.0, 2.0, 4.0)
    ]
    assert all(report.local for report in loop.told.reports)
    # They are the same at first, and tested as one.
    assert loop.evaluation.seen == [[0.0], [1.0], [2.0], [3.0], [2.0], [4.0], [6.0]]


def test_a_client_that_sits_out_is_not_tested_again() -> None:
    experiment = config(
        rounds=3, strategy=LocalOnly(), clients=ClientsConfig(num=4, fraction_train=0.5)
    )
    loop = Loop(experiment, _add)
    outcome = loop.run()
    cohorts = [draw_cohort(experiment, "cohort", 0.5, t) for t in (1, 2, 3)]
    found = [
        [row.client for row in report.measurements if row[1:4] == ("local", "test", "all")][::2]
        for report in loop.told.reports
    ]
    assert found == [[0, 1, 2, 3], *cohorts]
    assert len(loop.evaluation.seen) == 1 + 3 * 2
    # All four count in the headline.
    times = [sum(k in cohort for cohort in cohorts) for k in range(4)]
    assert outcome.headline("accuracy") == sum(n * (k + 1) for k, n in enumerate(times)) / 4


def test_local_models_evaluate_on_their_own_clients() -> None:
    clients = ClientsConfig(num=3, fraction_evaluate=1.0)
    experiment = config(rounds=1, strategy=LocalOnly(), clients=clients)
    loop = Loop(experiment, _add, lambda _, w: evaluated(1, float(w[0]), 0.5))
    loop.run()
    rows = loop.told.rows(split="client_test", metric="loss")
    assert {row.model for row in rows} == {"local"}
    # Each evaluates its own weight 1, 2 or 3; their mean stands last, without a client.
    assert [(row.client, row.value) for row in rows] == [(0, 1.0), (1, 2.0), (2, 3.0), (None, 2.0)]


# --- stopping -------------------------------------------------------------------------------------


def test_the_loop_stops_when_nothing_improves() -> None:
    # The weight grows by one a round up to 2, so rounds 3 and 4 improve nothing.
    def climb(_: int, weight: Floats) -> RecordDict:
        return trained(min(2.0, weight[0] + 1), num_examples=1)

    stop = StopConfig(metric="accuracy", min_delta=0.5, patience=2)
    loop = Loop(config(rounds=9, stop=stop), climb)
    outcome = loop.run()
    assert (outcome.rounds, outcome.stopped_early, outcome.best_round) == (4, True, 2)
    assert loop.last_round_measured == 4
    assert [report.round for report in loop.told.reports] == [0, 1, 2, 3, 4]


def test_running_out_of_patience_in_the_last_round_is_not_early() -> None:
    stop = StopConfig(metric="accuracy", min_delta=0.5, patience=2)
    still = Loop(config(rounds=2, stop=stop), lambda _, w: trained(*w, num_examples=1))
    outcome = still.run()
    assert (outcome.rounds, outcome.stopped_early) == (2, False)


def test_isolated_rounds_replace_rounds() -> None:
    experiment = config(rounds=1, isolated_rounds=3, strategy=LocalOnly())
    assert Loop(experiment, _add).run().rounds == 3


# --- what a listener is told ----------------------------------------------------------------------


def test_a_listener_is_told_of_clients_and_rounds() -> None:
    told: list[Any] = []

    class Everything(Listener):
        def progress(self, server_round: int, phase: str, done: int, total: int) -> None:
            told.append((server_round, phase, done, total))

        def round(self, report: RoundReport) -> None:
            told.append((report.round, report.headline, report.local))

    clients = ClientsConfig(num=2, fraction_evaluate=0.5)
    experiment = config(rounds=1, clients=clients)
    Loop(experiment, _add, lambda *_: evaluated(1, 0.5, 0.5), listener=Everything()).run()
    accuracy = pytest.approx(5 / 3)  # (1*1 + 2*2) / 3
    assert told == [
        (0, {"accuracy": 0.0, "loss": 10.0}, False),
        (1, "train", 1, 2),
        (1, "train", 2, 2),
        (1, "evaluate", 1, 1),
        (1, {"accuracy": accuracy, "loss": pytest.approx(10 - 5 / 3)}, False),
    ]


def test_phases_are_timed() -> None:
    experiment = config(rounds=1, clients=ClientsConfig(num=3, fraction_evaluate=1.0))
    loop = Loop(experiment, _add, lambda *_: evaluated(1, 0.5, 0.5))
    loop.run(startup=12.5)
    seconds = [report.seconds for report in loop.told.reports]
    assert [list(phases) for phases in seconds] == [
        ["startup", "evaluate"],
        ["train", "aggregate", "client_evaluate", "evaluate"],
    ]
    assert seconds[0]["startup"] == 12.5
    assert all(value >= 0 for phases in seconds for value in phases.values())


def test_clients_that_report_no_loss_leave_no_row() -> None:
    def without_loss(client: int, weight: Floats) -> RecordDict:
        reply = _add(client, weight)
        reply["metrics"] = MetricRecord({"num-examples": 1})
        return reply

    def silent(job: Job) -> None:
        """A client of which its page says nothing."""

    loop = Loop(played_by(silent, rounds=1), without_loss)
    loop.run()
    assert loop.told.rows(split="train", metric="loss") == []
