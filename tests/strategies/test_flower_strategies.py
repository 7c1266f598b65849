"""Flower's strategies, and those that users wrote for Flower, behind the one adapter."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid, strategy
from flwr.serverapp.exception import InconsistentMessageReplies
from support.helpers import (
    Clients,
    FirstWeight,
    config,
    initial_weights,
    same_weights,
    sent,
    setup,
    tiny_data,
    values,
    weights_of,
)

from fedexp.core.options import FedexpError
from fedexp.core.roles import Client, Job, Order, Server, Setup, Update, Updates
from fedexp.core.weights import Weights, copied
from fedexp.federation.servers import build_server
from fedexp.flower.grid import RUN_ID
from fedexp.flower.internals import current_run, identify
from fedexp.flower.messages import pack_order, to_record, to_weights, unpack_order
from fedexp.flower.strategies import WHOLE_COHORT, FlowerServer
from fedexp.strategies import Strategy
from fedexp.strategies.fedavg import FedAvg
from fedexp.strategies.fedavgm import FedAvgM
from fedexp.strategies.fedmedian import FedMedian
from fedexp.strategies.fedprox import FedProx
from fedexp.strategies.qfedavg import QFedAvg

MODEL = weights_of(1.0, 2.0)
TWO = Updates([sent(0, 3.0, 2.0, num_examples=10), sent(2, -1.0, 6.0, num_examples=30)])


# --- the same bits as Flower's own ----------------------------------------------------------------


def _noisy_updates(seed: int, count: int) -> tuple[Weights, Updates]:
    """Return a model with matrices, scalars and an int64 counter, and updates of odd numbers."""
    rng = np.random.default_rng(seed)

    def weights() -> Weights:
        return {
            "matrix": rng.normal(size=(7, 5)).astype(np.float32),
            "scale": np.array(rng.normal(), np.float32),
            "double": rng.normal(size=3),
            "counts": rng.integers(0, 1000, 4),
            "num_batches_tracked": np.array(rng.integers(0, 10_000)),
        }

    model = weights()
    updates = [
        Update(k, 1, weights(), int(rng.integers(1, 1000)), float(rng.random()))
        for k in range(count)
    ]
    return model, Updates(updates)


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        (FedAvg(), strategy.FedAvg(**WHOLE_COHORT)),
        (FedProx(proximal_mu=0.5), strategy.FedProx(proximal_mu=0.5, **WHOLE_COHORT)),
    ],
    ids=["fedavg", "fedprox"],
)
@pytest.mark.parametrize(("seed", "count"), [(0, 1), (1, 2), (2, 3), (3, 10), (4, 37)])
def test_every_bit_is_flowers(
    mine: Strategy, theirs: strategy.FedAvg, seed: int, count: int
) -> None:
    model, updates = _noisy_updates(seed, count)
    cohort = [update.client for update in updates]
    servers = [mine.server(setup(count)), FlowerServer(theirs)]
    for server in servers:
        server.instruct(1, model, cohort)
    ours, flowers = (server.combine(1, model, updates) for server in servers)
    assert same_weights(ours, flowers)
    assert {array.shape for array in ours.values()} == {(7, 5), (), (3,), (4,)}
    assert servers[0].loss(updates) == servers[1].loss(updates) is not None


# --- what a server sends --------------------------------------------------------------------------


class Talkative(strategy.FedAvg):
    """What a user wrote for Flower: sends a temperature and a mask, to each client its own rank."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**WHOLE_COHORT, **options})
        self.told: list[tuple[int, Weights, dict[str, Any]]] = []
        self.asked: list[int] = []

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        self.asked = list(grid.get_node_ids())
        config["temperature"] = 0.5 * server_round
        config["schedule"] = "cosine"
        messages = list(super().configure_train(server_round, arrays, config, grid))
        for message in messages:
            own = ConfigRecord({**config, "rank": self.asked.index(message.metadata.dst_node_id)})
            mask = to_record({"w": np.array([1.0, 0.0], np.float32)})
            message.content = RecordDict({**message.content, "config": own, "mask": mask})
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        replies = list(replies)
        for reply in replies:
            weights = to_weights(reply.content.array_records["arrays"])
            metrics: dict[str, Any] = dict(reply.content.metric_records["metrics"])
            self.told.append((reply.metadata.src_node_id, weights, metrics))
        return super().aggregate_train(server_round, replies)


def test_a_users_own_strategy_sends_what_it_likes_and_gets_what_clients_say() -> None:
    flowers = Talkative()
    server = FlowerServer(flowers)
    orders = server.instruct(3, MODEL, [0, 2])
    assert flowers.asked == [0, 2]
    assert sorted(orders) == [0, 2]
    for rank, client in enumerate([0, 2]):
        order = orders[client]
        assert order.weights is MODEL
        assert {name: values(array) for name, array in order.arrays.items()} == {"mask": [1.0, 0.0]}
        assert order.numbers == {"temperature": 1.5, "schedule": "cosine", "rank": rank}
        assert order.examples_of == ()
    updates = Updates(
        [
            sent(0, 3.0, 2.0, num_examples=10, loss=2.0, numbers={"norm": 1.0}),
            sent(2, -1.0, 6.0, num_examples=30, loss=1.0, numbers={"norm": 3.0}),
        ]
    )
    assert values(server.combine(3, MODEL, updates)) == [0.0, 5.0]
    assert [(client, values(weights), told) for client, weights, told in flowers.told] == [
        (0, [3.0, 2.0], {"num-examples": 10, "train_loss": 2.0, "norm": 1.0}),
        (2, [-1.0, 6.0], {"num-examples": 30, "train_loss": 1.0, "norm": 3.0}),
    ]
    assert server.loss(updates) == 1.25  # (10*2 + 30*1) / 40


def test_clients_hear_what_a_users_own_strategy_says() -> None:
    heard: list[tuple[int, dict[str, Any], dict[str, Any]]] = []

    class Listening(Client):
        def run(self, job: Job) -> None:
            heard.append((job.client, dict(job.order.numbers), dict(job.order.arrays)))
            scale = float(job.order.numbers["temperature"])
            job.send(
                {name: array * np.float32(scale) for name, array in job.model.items()},
                numbers={"rank": job.order.numbers["rank"]},  # type: ignore[dict-item]
            )

    @dataclass(frozen=True)
    class Mine(Strategy):
        name: str = "mine"

        def server(self, setup: Setup) -> Server:
            return FlowerServer(Talkative())

        def client(self) -> Client:
            return Listening()

    experiment = config(strategy=Mine())
    model = initial_weights(experiment)
    server = Mine().server(setup(3))
    updates = Clients(experiment, tiny_data()).train(1, server.instruct(1, model, [0, 1, 2]))
    assert [(client, numbers["rank"]) for client, numbers, _ in heard] == [(0, 0), (1, 1), (2, 2)]
    assert all(numbers["schedule"] == "cosine" for _, numbers, _ in heard)
    assert all(values(arrays["mask"]) == [1.0, 0.0] for _, _, arrays in heard)
    found = server.combine(1, model, updates)
    for name, array in model.items():
        np.testing.assert_allclose(found[name], array / 2, rtol=1e-6)
    assert server.loss(updates) is None  # nobody trained


class Picky(strategy.FedAvg):
    """Asks the last node of a cohort only."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        last = list(grid.get_node_ids())[-1:]
        content = RecordDict({"arrays": arrays, "config": config})
        return self._construct_messages(content, last, "train")


def test_a_client_that_a_strategy_leaves_out_is_not_asked() -> None:
    server = FlowerServer(Picky(**WHOLE_COHORT))
    assert list(server.instruct(1, MODEL, [0, 4])) == [4]
    assert values(server.combine(1, MODEL, Updates([sent(4, 7.0, 8.0)]))) == [7.0, 8.0]


def test_clients_may_be_sent_other_weights_than_the_model() -> None:
    class Noisy(strategy.FedAvg):
        def configure_train(
            self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
        ) -> Iterable[Message]:
            noisy = to_record({"w": arrays["w"].numpy() + np.float32(1)})
            return super().configure_train(server_round, noisy, config, grid)

    order = FlowerServer(Noisy(**WHOLE_COHORT)).instruct(1, MODEL, [0])[0]
    assert values(order.weights) == [2.0, 3.0]
    assert values(MODEL) == [1.0, 2.0]


def test_clients_that_are_told_the_same_share_one_order() -> None:
    orders = FlowerServer(strategy.FedAvg(**WHOLE_COHORT)).instruct(1, MODEL, [0, 1, 2])
    assert len({id(order) for order in orders.values()}) == 1
    own = FlowerServer(Talkative()).instruct(1, MODEL, [0, 1, 2])
    assert len({id(order) for order in own.values()}) == 3


def test_an_order_of_flowers_survives_its_message() -> None:
    order = FlowerServer(Talkative()).instruct(2, MODEL, [5])[5]
    found, server_round = unpack_order(pack_order(order, 2))
    assert server_round == 2
    assert same_weights(found.weights, MODEL)
    assert same_weights(found.arrays["mask"], order.arrays["mask"])
    assert found.numbers == order.numbers


def test_a_strategy_that_wants_more_nodes_than_there_are_waits_as_flowers_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Waits(Exception):
        pass

    def wait(_: float) -> None:
        raise Waits

    monkeypatch.setattr("flwr.serverapp.strategy.strategy_utils.sleep", wait)
    with pytest.raises(Waits):
        FlowerServer(strategy.FedAvg()).instruct(
            1, MODEL, [0]
        )  # two, if one does not say otherwise
    whole = FlowerServer(strategy.FedAvg(**WHOLE_COHORT))
    assert list(whole.instruct(1, MODEL, [0])) == [0]


def test_a_strategy_cannot_send_messages_on_its_own() -> None:
    class Impatient(strategy.FedAvg):
        def configure_train(
            self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
        ) -> Iterable[Message]:
            messages = list(super().configure_train(server_round, arrays, config, grid))
            return list(grid.send_and_receive(messages))

    with pytest.raises(RuntimeError, match="round loop"):
        FlowerServer(Impatient(**WHOLE_COHORT)).instruct(1, MODEL, [0])


def test_messages_still_belong_to_the_run_that_flower_knows() -> None:
    identify(4711)  # as on backend=flower, whose runtime takes messages of its own run only
    try:
        server = FlowerServer(strategy.FedAvg(**WHOLE_COHORT))
        server.instruct(1, MODEL, [0, 2])
        server.combine(1, MODEL, TWO)
        assert current_run() == 4711
    finally:
        identify(RUN_ID)


def test_what_is_called_before_a_round_comes_before_the_strategy_is_asked() -> None:
    order: list[Any] = []

    class Asked(strategy.FedAvg):
        def configure_train(
            self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
        ) -> Iterable[Message]:
            order.append("asked")
            return super().configure_train(server_round, arrays, config, grid)

    FlowerServer(Asked(**WHOLE_COHORT), order.append).instruct(7, MODEL, [0])
    assert order == [7, "asked"]


# --- what a server makes of it --------------------------------------------------------------------


@pytest.mark.parametrize("chosen", [QFedAvg(q=1.0), FedAvgM(), FedMedian()], ids=lambda c: c.name)
def test_what_clients_sent_is_left_alone_where_flower_computes_in_place(chosen: Strategy) -> None:
    three = [sent(k, 3.0 - k, 2.0 + k, numbers={"global-loss": 1.0 + k}) for k in range(3)]
    before, model = [copied(update.weights) for update in three], copied(MODEL)
    server = chosen.server(setup(3))
    for update in three:
        update.weights["w"].flags.writeable = False  # as they come off a message
    model["w"].flags.writeable = False
    server.instruct(1, model, [0, 1, 2])
    combined = server.combine(1, model, Updates(three))
    assert combined["w"].tolist() != values(model)
    assert all(
        same_weights(update.weights, kept) for update, kept in zip(three, before, strict=True)
    )
    assert same_weights(model, MODEL)


def test_a_round_without_a_model_ends_the_run() -> None:
    class Undecided(strategy.FedAvg):
        def aggregate_train(
            self, server_round: int, replies: Iterable[Message]
        ) -> tuple[ArrayRecord | None, MetricRecord | None]:
            return None, None

    server = FlowerServer(Undecided(**WHOLE_COHORT))
    server.instruct(4, MODEL, [0, 2])
    with pytest.raises(FedexpError, match=r"^round 4: Undecided made no model of 2 replies$"):
        server.combine(4, MODEL, TWO)


@pytest.mark.parametrize("loss", [None, 1, "none"], ids=["nothing", "an integer", "no record"])
def test_no_training_loss_is_none(loss: Any) -> None:
    class Silent(strategy.FedAvg):
        def aggregate_train(
            self, server_round: int, replies: Iterable[Message]
        ) -> tuple[ArrayRecord | None, MetricRecord | None]:
            arrays, _ = super().aggregate_train(server_round, replies)
            if loss == "none":
                return arrays, None
            return arrays, MetricRecord({} if loss is None else {"train_loss": loss})

    server = FlowerServer(Silent(**WHOLE_COHORT))
    server.instruct(1, MODEL, [0, 2])
    assert values(server.combine(1, MODEL, TWO)) == [0.0, 5.0]
    assert server.loss(TWO) is None


def test_the_loss_of_the_last_round_does_not_linger() -> None:
    server = FlowerServer(strategy.FedAvg(**WHOLE_COHORT))
    found = []
    for server_round, loss in ((1, 0.5), (2, None)):
        updates = Updates([sent(0, 1.0, 1.0, loss=loss)])
        server.instruct(server_round, MODEL, [0])
        server.combine(server_round, MODEL, updates)
        found.append(server.loss(updates))
    assert found == [0.5, None]


def test_flowers_own_check_of_replies_still_holds() -> None:
    server = FlowerServer(strategy.FedAvg(**WHOLE_COHORT))
    server.instruct(1, MODEL, [0, 1])
    uneven = Updates([sent(0, 1.0, 1.0, numbers={"norm": 1.0}), sent(1, 1.0, 1.0)])
    with pytest.raises(InconsistentMessageReplies):
        server.combine(1, MODEL, uneven)


def test_replies_answer_the_messages_of_their_round() -> None:
    seen: list[tuple[int, int, str]] = []

    class Looks(strategy.FedAvg):
        def aggregate_train(
            self, server_round: int, replies: Iterable[Message]
        ) -> tuple[ArrayRecord | None, MetricRecord | None]:
            replies = list(replies)
            for reply in replies:
                data = reply.metadata
                seen.append((server_round, data.src_node_id, data.message_type))
            return super().aggregate_train(server_round, replies)

    server = FlowerServer(Looks(**WHOLE_COHORT))
    for server_round, cohort in ((1, [0, 1]), (2, [1, 2])):
        server.instruct(server_round, MODEL, cohort)
        server.combine(server_round, MODEL, Updates([sent(k, 1.0, 1.0) for k in cohort]))
    assert seen == [(1, 0, "train"), (1, 1, "train"), (2, 1, "train"), (2, 2, "train")]


def test_what_a_strategy_returns_may_be_of_flowers_own_arrays() -> None:
    class Doubled(strategy.FedAvg):
        def aggregate_train(
            self, server_round: int, replies: Iterable[Message]
        ) -> tuple[ArrayRecord | None, MetricRecord | None]:
            arrays, metrics = super().aggregate_train(server_round, replies)
            assert arrays is not None
            return ArrayRecord([2 * array.numpy() for array in arrays.values()]), metrics

    server = FlowerServer(Doubled(**WHOLE_COHORT))
    server.instruct(1, MODEL, [0, 2])
    found = server.combine(1, MODEL, TWO)
    assert [array.tolist() for array in found.values()] == [[0.0, 10.0]]


# --- together with buffers that are kept apart ----------------------------------------------------


def test_a_users_own_strategy_need_not_see_buffers() -> None:
    names: list[list[str]] = []

    class Watching(strategy.FedAvg):
        def configure_train(
            self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
        ) -> Iterable[Message]:
            names.append(list(arrays))
            return super().configure_train(server_round, arrays, config, grid)

        def aggregate_train(
            self, server_round: int, replies: Iterable[Message]
        ) -> tuple[ArrayRecord | None, MetricRecord | None]:
            replies = list(replies)
            names.extend(
                list(to_weights(reply.content.array_records["arrays"])) for reply in replies
            )
            return super().aggregate_train(server_round, replies)

    @dataclass(frozen=True)
    class Mine(Strategy):
        averages_buffers = True

        name: str = "mine"

        def server(self, setup: Setup) -> Server:
            return FlowerServer(Watching(**WHOLE_COHORT))

    evaluation = FirstWeight(1.0)
    evaluation.buffers = frozenset({"n"})
    server = build_server(config(strategy=Mine()), evaluation)
    model: Weights = {"n": np.array(4), **weights_of(1.0)}
    orders = server.instruct(1, model, [0, 1])
    assert all(order.weights is model for order in orders.values())
    assert orders[0] is orders[1]
    updates = [
        Update(k, 1, {"n": np.array(6 + 2 * k), **weights_of(2.0 * k)}, 1, 0.5) for k in (0, 1)
    ]
    found = server.combine(1, model, Updates(updates))
    assert {name: array.tolist() for name, array in found.items()} == {"n": 7.0, "w": [1.0]}
    assert list(found) == ["n", "w"]
    assert names == [["w"]] * 3


def test_orders_are_plain() -> None:
    order = FlowerServer(strategy.FedProx(proximal_mu=0.25, **WHOLE_COHORT)).instruct(
        1, MODEL, [0]
    )[0]
    assert isinstance(order, Order)
    assert order.numbers == {"proximal-mu": 0.25}  # the round goes with every message anyway
