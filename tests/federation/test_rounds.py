from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedexp.federation.behaviour import byzantine_clients
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st
from support.helpers import (
    Answer,
    FirstWeight,
    Floats,
    config,
    evaluated,
    metrics,
    scripted_app,
    trained,
    values,
)

from fedexp.backends.inline import InlineGrid
from fedexp.config.clients import ByzantineConfig, ClientsConfig
from fedexp.config.schema import Config, StopConfig
from fedexp.config.training import TrainingConfig
from fedexp.core.options import FedexpError
from fedexp.federation.rounds import Outcome, Patience, Progress, RoundLoop, draw_cohort
from fedexp.flower.strategies import build_strategy
from fedexp.strategies.fedmedian import FedMedian
from fedexp.strategies.local_only import LocalOnly
from fedexp.tracking.run_folder import RunFolder

# --- cohorts --------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    num=st.integers(1, 300),
    fraction=st.floats(0.001, 1),
    seed=st.integers(0, 2**32),
    server_round=st.integers(1, 1000),
)
def test_a_cohort_is_sorted_distinct_and_of_the_right_size(
    num: int, fraction: float, seed: int, server_round: int
) -> None:
    experiment = config(seed=seed, clients=ClientsConfig(num=num))
    cohort = draw_cohort(experiment, "cohort", fraction, server_round)
    assert cohort == sorted(set(cohort))
    assert set(cohort) <= set(range(num))
    assert len(cohort) == max(1, round(fraction * num))
    other = config(seed=seed, clients=ClientsConfig(num=num), strategy=LocalOnly())
    assert draw_cohort(other, "cohort", fraction, server_round) == cohort


def test_a_cohort_is_the_draw_of_seed_purpose_and_round() -> None:
    experiment = config(seed=5, clients=ClientsConfig(num=100))
    for purpose, number in (("cohort", 2), ("evaluate_cohort", 3)):
        state = np.random.SeedSequence((5, number, 7, 0)).generate_state(1, np.uint64)[0]
        rng = np.random.Generator(np.random.PCG64(int(state >> np.uint64(1))))
        expected = sorted(rng.choice(100, 10, replace=False).tolist())
        assert draw_cohort(experiment, purpose, 0.1, 7) == expected  # type: ignore[arg-type]


def test_cohorts_differ_between_rounds_seeds_and_purposes() -> None:
    one, two = (config(seed=seed, clients=ClientsConfig(num=100)) for seed in (1, 2))
    draws = [
        draw_cohort(one, "cohort", 0.1, 1),
        draw_cohort(one, "cohort", 0.1, 2),
        draw_cohort(two, "cohort", 0.1, 1),
        draw_cohort(one, "evaluate_cohort", 0.1, 1),
    ]
    assert len({tuple(draw) for draw in draws}) == 4


def test_everyone_takes_part_at_fraction_1_and_someone_at_any() -> None:
    experiment = config(clients=ClientsConfig(num=7))
    assert draw_cohort(experiment, "cohort", 1.0, 1) == [0, 1, 2, 3, 4, 5, 6]
    assert len(draw_cohort(experiment, "cohort", 0.001, 1)) == 1


# --- the loop on clients of one weight ------------------------------------------------------------


class Watched(InlineGrid):
    """Notes which clients were called, in which order."""

    def __init__(self, train: Answer, evaluate: Answer | None, num: int) -> None:
        super().__init__(scripted_app(train, evaluate), num)
        self.calls: list[tuple[str, list[int]]] = []

    def exchange(self, messages: list[Message]) -> list[Message]:
        clients = [message.metadata.dst_node_id for message in messages]
        self.calls.append((messages[0].metadata.message_type, clients))
        return super().exchange(messages)


class Loop:
    """One run of the round loop; the model is a single weight that starts at 0."""

    def __init__(
        self,
        path: Path,
        experiment: Config,
        train: Answer,
        evaluate: Answer | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.path = path
        self.grid = Watched(train, evaluate, experiment.clients.num)
        self.evaluation = FirstWeight()
        self._loop = RoundLoop(
            experiment,
            build_strategy(experiment),
            self.evaluation,
            RunFolder(path, experiment),
            {"w": np.zeros(1, dtype=np.float32)},
            progress or Progress(),
        )

    def run(self) -> Outcome:
        self._loop.run(self.grid)
        return self._loop.outcome

    def failures(self) -> list[list[str]]:
        with (self.path / "failures.csv").open(newline="") as file:
            return list(csv.reader(file))[1:]


def _add(client: int, weight: Floats) -> RecordDict:
    """Client k adds k + 1, with k + 1 examples: the mean of three is (1*1 + 2*2 + 3*3) / 6."""
    return trained(weight[0] + client + 1, num_examples=client + 1, loss=client / 2)


MEAN = 14 / 6


def test_rounds_follow_the_weighted_mean(tmp_path: Path) -> None:
    loop = Loop(tmp_path, config(rounds=2), _add)
    outcome = loop.run()
    assert [seen[0] for seen in loop.evaluation.seen] == pytest.approx([0, MEAN, 2 * MEAN])
    assert values(outcome.weights) == pytest.approx([2 * MEAN])
    assert (outcome.rounds, outcome.stopped_early) == (2, False)
    assert outcome.best_round == 2
    assert outcome.best_accuracy == pytest.approx(2 * MEAN)
    assert loop.grid.calls == [("train", [0, 1, 2])] * 2
    assert loop.failures() == []
    table = metrics(tmp_path)
    headline = table.query("model == 'global' and split == 'test' and subset == 'all'")
    assert headline.query("metric == 'accuracy'")["round"].tolist() == [0, 1, 2]
    found = headline.query("metric == 'loss'")["value"].tolist()
    assert found == pytest.approx([10, 10 - MEAN, 10 - 2 * MEAN])
    # Training loss: (1*0 + 2*0.5 + 3*1) / 6.
    losses = table.query("split == 'train' and metric == 'loss'")
    assert losses["value"].tolist() == pytest.approx([4 / 6, 4 / 6])
    assert losses["client"].isna().all()
    # One float32 to each of three clients and back.
    traffic = table.query("metric == 'bytes_down' or metric == 'bytes_up'")
    assert traffic["value"].tolist() == [12, 12] * 2


def test_clients_that_fail_send_nothing_and_evaluation_counts(tmp_path: Path) -> None:
    def answer(client: int, weight: Floats) -> RecordDict:
        if client == 1:
            raise ValueError("no")
        return _add(client, weight)

    clients = ClientsConfig(num=3, fraction_evaluate=1.0)
    loop = Loop(
        tmp_path, config(rounds=1, clients=clients), answer, lambda _, w: evaluated(1, 0.5, 0.5)
    )
    loop.run()
    traffic = metrics(tmp_path).query("split == 'train' and metric != 'loss'")
    # Down: three to train, three to evaluate; up: two trained models.
    assert traffic["value"].tolist() == [24, 8]


def test_isolated_clients_send_nothing(tmp_path: Path) -> None:
    Loop(tmp_path, config(rounds=1, strategy=LocalOnly()), _add).run()
    assert metrics(tmp_path).query("metric == 'bytes_down' or metric == 'bytes_up'").empty


def test_only_the_cohort_is_called(tmp_path: Path) -> None:
    clients = ClientsConfig(num=20, fraction_train=0.2, fraction_evaluate=0.1)
    experiment = config(rounds=3, clients=clients)
    loop = Loop(tmp_path, experiment, _add, lambda _, w: evaluated(1, 0.5, 0.5))
    loop.run()
    expected = []
    for server_round in (1, 2, 3):
        expected.append(("train", draw_cohort(experiment, "cohort", 0.2, server_round)))
        evaluators = draw_cohort(experiment, "evaluate_cohort", 0.1, server_round)
        expected.append(("evaluate", evaluators))
    assert loop.grid.calls == expected
    assert [len(clients) for _, clients in expected] == [4, 2] * 3


def test_one_client_is_its_own_average(tmp_path: Path) -> None:
    experiment = config(rounds=2, clients=ClientsConfig(num=1))
    assert values(Loop(tmp_path, experiment, _add).run().weights) == [2.0]


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
        (_no_examples, "num-examples must be >= 1 after training"),
        (_other_shape, "parameter w is float32(2,), the model's is float32(1,)"),
        (_no_arrays, "arrays"),
        (_no_metrics, "metrics"),
    ],
)
def test_a_bad_reply_is_recorded_and_left_out(tmp_path: Path, train: Answer, reason: str) -> None:
    loop = Loop(tmp_path, config(rounds=1), train)
    # Clients 0 and 2 are left: (1*1 + 3*3) / 4.
    assert values(loop.run().weights) == [2.5]
    ((server_round, phase, client, found),) = loop.failures()
    assert (server_round, phase, client) == ("1", "train", "1")
    assert reason in found


def test_a_round_in_which_every_client_fails_ends_the_run(tmp_path: Path) -> None:
    def fail_later(client: int, weight: Floats) -> RecordDict:
        if weight[0] > 0:
            raise OSError(f"disk of client {client} is full")
        return _add(client, weight)

    loop = Loop(tmp_path, config(rounds=5), fail_later)
    pattern = (
        r"^round 2: all 3 clients failed to train; client 0: OSError: disk of client 0 is full$"
    )
    with pytest.raises(FedexpError, match=pattern):
        loop.run()
    assert [row[:3] for row in loop.failures()] == [["2", "train", str(k)] for k in range(3)]
    assert metrics(tmp_path)["round"].max() == 1


def test_a_round_with_too_few_replies_for_the_strategy_ends_the_run(tmp_path: Path) -> None:
    def fail(client: int, weight: Floats) -> RecordDict:
        if client == 1:
            raise OSError("disk is full")
        return _add(client, weight)

    loop = Loop(tmp_path, config(strategy=FedMedian()), fail)
    pattern = (
        r"^round 1: strategy=fedmedian needs 3 replies \(3 \(the median.*, got 2: a larger clien"
    )
    with pytest.raises(FedexpError, match=pattern):
        loop.run()
    assert [row[:3] for row in loop.failures()] == [["1", "train", "1"]]


def test_faulty_clients_are_recorded_before_the_first_round(tmp_path: Path) -> None:
    faults = ByzantineConfig(fraction=0.67, kind="gaussian")
    experiment = config(rounds=1, clients=ClientsConfig(num=3, byzantine=faults))
    loop = Loop(tmp_path, experiment, _add)
    loop.run()
    wanted = [["0", "byzantine", str(k), "gaussian"] for k in byzantine_clients(experiment)]
    assert loop.failures() == wanted
    assert len(wanted) == 2


def test_an_aggregate_that_overflows_ends_the_run(tmp_path: Path) -> None:
    def grow(client: int, weight: Floats) -> RecordDict:
        return trained(3.4e38, num_examples=1)

    class Sum(type(build_strategy(config()))):  # type: ignore[misc]
        def aggregate_train(self, server_round: int, replies: Any) -> Any:
            total = sum(reply.content["arrays"]["w"].numpy() for reply in replies)
            return trained(*total, num_examples=1)["arrays"], None

    loop = Loop(tmp_path, config(rounds=1), grow)
    loop._loop._strategy = Sum()
    with (
        np.errstate(over="ignore"),
        pytest.raises(
            FedexpError, match="round 1: the aggregate is unusable: parameter w holds NaN"
        ),
    ):
        loop.run()


# --- evaluation on clients ------------------------------------------------------------------------


def test_client_evaluations_are_recorded_and_averaged_by_examples(tmp_path: Path) -> None:
    answers = [evaluated(1, 4.0, 1.0), evaluated(0, 99.0, 0.0), evaluated(3, 2.0, 0.5)]
    experiment = config(rounds=1, clients=ClientsConfig(num=3, fraction_evaluate=1.0))
    Loop(tmp_path, experiment, _add, lambda client, _: answers[client]).run()
    rows = metrics(tmp_path).query("split == 'client_test'").fillna({"client": -1})
    assert (rows["model"] == "global").all()
    found = {(client, name): value for client, name, value in rows.to_numpy()[:, 4:].tolist()}
    assert found == {
        (0, "loss"): 4.0,
        (0, "accuracy"): 1.0,
        (2, "loss"): 2.0,
        (2, "accuracy"): 0.5,
        (-1, "loss"): 2.5,  # (1*4 + 3*2) / 4; client 1 holds no image and has no say
        (-1, "accuracy"): 0.625,
    }


def test_no_client_with_a_test_image_means_no_rows(tmp_path: Path) -> None:
    experiment = config(rounds=1, clients=ClientsConfig(num=3, fraction_evaluate=1.0))
    loop = Loop(tmp_path, experiment, _add, lambda *_: evaluated(0, 0.0, 0.0))
    assert loop.run().rounds == 1
    assert metrics(tmp_path).query("split == 'client_test'").empty
    assert loop.failures() == []


def test_an_evaluation_that_is_nan_is_recorded_and_left_out(tmp_path: Path) -> None:
    answers = [evaluated(1, 4.0, 1.0), evaluated(9, float("nan"), 0.5), evaluated(1, 2.0, 0.5)]
    experiment = config(rounds=1, clients=ClientsConfig(num=3, fraction_evaluate=1.0))
    loop = Loop(tmp_path, experiment, _add, lambda client, _: answers[client])
    loop.run()
    assert loop.failures() == [["1", "client_evaluate", "1", "metric loss is nan"]]
    rows = metrics(tmp_path).query("split == 'client_test' and client.isna() and metric == 'loss'")
    assert rows["value"].tolist() == [3.0]  # (4 + 2) / 2


# --- local models ---------------------------------------------------------------------------------


def test_local_models_are_evaluated_one_by_one(tmp_path: Path) -> None:
    loop = Loop(tmp_path, config(rounds=2, strategy=LocalOnly()), _add)
    outcome = loop.run()
    # After two rounds client k has added k + 1 twice.
    assert {k: values(w) for k, w in outcome.local_weights.items()} == {
        0: [2.0],
        1: [4.0],
        2: [6.0],
    }
    assert outcome.headline("accuracy") == 4.0
    assert outcome.headline("loss") == 6.0
    rows = metrics(tmp_path).query("split == 'test' and metric == 'accuracy'")
    assert (rows["model"] == "local").all()
    assert rows[["round", "client", "value"]].to_numpy().tolist() == [
        [server_round, k, server_round * (k + 1)] for server_round in (0, 1, 2) for k in range(3)
    ]


def test_local_models_evaluate_on_their_own_clients(tmp_path: Path) -> None:
    clients = ClientsConfig(num=3, fraction_evaluate=1.0)
    experiment = config(rounds=1, strategy=LocalOnly(), clients=clients)
    Loop(tmp_path, experiment, _add, lambda _, w: evaluated(1, float(w[0]), 0.5)).run()
    rows = metrics(tmp_path).query("split == 'client_test' and metric == 'loss'")
    assert (rows["model"] == "local").all()
    # Each evaluates its own weight 1, 2 or 3; their mean stands last, without a client.
    assert rows["value"].tolist() == [1.0, 2.0, 3.0, 2.0]


# --- stopping -------------------------------------------------------------------------------------


def _exhausted(stop: StopConfig, values: list[float]) -> list[bool]:
    patience = Patience(stop, values[0])
    return [patience.exhausted(value) for value in values[1:]]


def test_patience_counts_rounds_in_a_row() -> None:
    stop = StopConfig(metric="accuracy", min_delta=0.125, patience=2)
    # 0.5 -> 0.625 improves by just enough; 0.6875 does not, and 0.75 does against 0.625.
    curve = [0.5, 0.625, 0.6875, 0.75, 0.75, 0.8125]
    assert _exhausted(stop, curve) == [False, False, False, False, True]


def test_slow_progress_adds_up_until_patience_is_out() -> None:
    stop = StopConfig(metric="accuracy", min_delta=0.25, patience=3)
    assert _exhausted(stop, [0.0, 0.125, 0.1875, 0.25, 0.375, 0.4375, 0.46875]) == [
        *[False, False, False],
        *[False, False, True],
    ]


def test_a_loss_improves_downwards() -> None:
    stop = StopConfig(metric="loss", min_delta=0.5, patience=1)
    assert _exhausted(stop, [4.0, 3.5, 3.0, 2.75]) == [False, False, True]
    assert _exhausted(stop, [4.0, 5.0]) == [True]
    accuracy = StopConfig(metric="accuracy", min_delta=0.5, patience=1)
    assert _exhausted(accuracy, [4.0, 5.0, 5.25]) == [False, True]


def test_patience_null_never_stops() -> None:
    assert _exhausted(StopConfig(patience=None), [0.5] * 100) == [False] * 99


def test_the_loop_stops_when_nothing_improves(tmp_path: Path) -> None:
    # The weight grows by one a round up to 2, so rounds 3 and 4 improve nothing.
    def climb(_: int, weight: Floats) -> RecordDict:
        return trained(min(2.0, weight[0] + 1), num_examples=1)

    stop = StopConfig(metric="accuracy", min_delta=0.5, patience=2)
    outcome = Loop(tmp_path, config(rounds=9, stop=stop), climb).run()
    assert (outcome.rounds, outcome.stopped_early, outcome.best_round) == (4, True, 2)
    assert metrics(tmp_path)["round"].max() == 4


def test_running_out_of_patience_in_the_last_round_is_not_early(tmp_path: Path) -> None:
    stop = StopConfig(metric="accuracy", min_delta=0.5, patience=2)
    still = Loop(tmp_path, config(rounds=2, stop=stop), lambda _, w: trained(*w, num_examples=1))
    outcome = still.run()
    assert (outcome.rounds, outcome.stopped_early) == (2, False)


def test_isolated_rounds_replace_rounds(tmp_path: Path) -> None:
    experiment = config(rounds=1, isolated_rounds=3, strategy=LocalOnly())
    assert Loop(tmp_path, experiment, _add).run().rounds == 3


def test_progress_is_told_of_clients_and_rounds(tmp_path: Path) -> None:
    told: list[tuple[Any, ...]] = []
    progress = Progress(lambda *args: told.append(args), lambda *args: told.append(args))
    experiment = config(rounds=1, clients=ClientsConfig(num=2), training=TrainingConfig())
    Loop(tmp_path, experiment, _add, progress=progress).run()
    # (1*1 + 2*2) / 3
    assert [told[0], *told[1:3]] == [(0, 0.0, 10.0), (1, "train", 1, 2), (1, "train", 2, 2)]
    assert told[3] == (1, pytest.approx(5 / 3), pytest.approx(10 - 5 / 3))


def test_clients_that_report_no_loss_leave_no_row(tmp_path: Path) -> None:
    def without_loss(client: int, weight: Floats) -> RecordDict:
        reply = _add(client, weight)
        reply["metrics"] = MetricRecord({"num-examples": 1})
        return reply

    Loop(tmp_path, config(rounds=1), without_loss).run()
    assert metrics(tmp_path).query("split == 'train' and metric == 'loss'").empty
