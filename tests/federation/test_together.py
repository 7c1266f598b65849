"""A round whose clients are trained together, from messages to replies."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Message
from support.helpers import (
    config,
    initial_weights,
    metrics,
    played_by,
    same_weights,
    summary,
    tiny_data,
    with_fault,
)
from support.resuming import assert_same_run, killed_at, resumed, run_small

from fedexp.backends.inline import InlineGrid
from fedexp.config.backend import InlineBackend
from fedexp.config.clients import ByzantineConfig, ClientsConfig
from fedexp.config.schema import Config
from fedexp.config.training import TrainingConfig
from fedexp.core.roles import Job, Order
from fedexp.core.weights import Weights
from fedexp.data.federated import FederatedData
from fedexp.federation.client import ClientNode
from fedexp.federation.together import Together, stacked
from fedexp.flower.app import client_app
from fedexp.flower.messages import pack_order, weights_in
from fedexp.strategies import Strategy
from fedexp.strategies.fedavg import FedAvg
from fedexp.strategies.fedlc import FedLc
from fedexp.strategies.fedprox import FedProx
from fedexp.strategies.fedsam import FedSam
from fedexp.training.device import limited_threads
from fedexp.training.stacked import AloneError, Share
from fedexp.training.torch_trainer import TorchTrainer

SIZES = (8, 6, 8, 8, 5)
"""Clients 0, 2 and 3 do equal work."""

EQUAL = {0, 2, 3}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with limited_threads(1):
        yield


@pytest.fixture
def done_together(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Sizes of the examples of those who were trained together, list by list."""
    seen: list[list[int]] = []
    real = TorchTrainer.train_together

    def watched(self: TorchTrainer, shares: Sequence[Share]) -> Any:
        seen.append([len(share.examples) for share in shares])
        return real(self, shares)

    monkeypatch.setattr(TorchTrainer, "train_together", watched)
    return seen


def _experiment(stack: int | None, **changes: Any) -> Config:
    clients = changes.pop("clients", ClientsConfig(num=len(SIZES)))
    return config(clients=clients, backend=InlineBackend(stack=stack), **changes)


def _data() -> FederatedData:
    data: FederatedData = tiny_data(SIZES, (2,) * len(SIZES))
    return data


def _replies(
    experiment: Config, data: FederatedData | None = None, orders: dict[int, Order] | None = None
) -> dict[int, Message]:
    data = data or _data()
    node = ClientNode(experiment, lambda: data)
    grid = InlineGrid(client_app(node), experiment.clients.num, Together(node))
    if orders is None:
        order = Order(initial_weights(experiment))
        orders = dict.fromkeys(range(experiment.clients.num), order)
    messages = [
        Message(pack_order(order, 1), dst_node_id=client, message_type="train")
        for client, order in orders.items()
    ]
    replies = list(grid.send_and_receive(messages))
    assert not node.ahead  # whoever was trained ahead has been called
    return {reply.metadata.src_node_id: reply for reply in replies}


def _weights(reply: Message) -> Weights:
    assert not reply.has_error(), reply.error
    return weights_in(reply.content, "arrays")


def _assert_close(mine: Message, theirs: Message) -> None:
    for name, array in _weights(theirs).items():
        assert np.allclose(_weights(mine)[name], array, rtol=1e-5, atol=1e-7)
    sent = [dict(reply.content.metric_records["metrics"]) for reply in (mine, theirs)]
    assert sent[0] == pytest.approx(sent[1], rel=1e-5)


@pytest.mark.parametrize("strategy", [FedAvg(), FedProx(proximal_mu=0.5)], ids=lambda s: s.name)
def test_clients_of_equal_work_are_trained_together(
    done_together: list[list[int]], strategy: Strategy
) -> None:
    stacks, alone = (_replies(_experiment(stack, strategy=strategy)) for stack in (8, 1))
    assert done_together == [[8, 8, 8]]
    for client, reply in alone.items():
        _assert_close(stacks[client], reply)
        same = same_weights(_weights(stacks[client]), _weights(reply))
        assert same or client in EQUAL  # the others were trained as ever


def test_nobody_is_trained_together_by_default(done_together: list[list[int]]) -> None:
    default, alone = _replies(_experiment(None)), _replies(_experiment(1))
    assert done_together == []
    for client, reply in alone.items():
        assert same_weights(_weights(default[client]), _weights(reply))


def test_replies_depend_neither_on_who_is_asked_nor_on_how_many_at_once() -> None:
    order = Order(initial_weights(_experiment(8)))
    whole = _replies(_experiment(8))
    two = _replies(_experiment(2))
    some = _replies(_experiment(8), orders={2: order, 1: order, 0: order})
    for replies in (two, some):
        for client, reply in replies.items():
            assert same_weights(_weights(reply), _weights(whole[client]))


@pytest.mark.parametrize("strategy", [FedLc(), FedSam()], ids=lambda s: s.name)
def test_losses_and_rules_of_strategies_are_for_one_client_at_a_time(
    done_together: list[list[int]], strategy: Strategy
) -> None:
    together = _replies(_experiment(8, strategy=strategy))
    alone = _replies(_experiment(1, strategy=strategy))
    assert done_together == []
    for client, reply in alone.items():
        assert same_weights(_weights(together[client]), _weights(reply))


def test_stragglers_and_label_flippers_are_stacked_with_their_like(
    done_together: list[list[int]],
) -> None:
    flip = ByzantineConfig(kind="label_flip", fraction=0.4)
    changes: dict[str, Any] = {
        "clients": ClientsConfig(num=len(SIZES), stragglers=0.5, byzantine=flip),
        "training": TrainingConfig(local_epochs=3, batch_size=4),
    }
    stacks, alone = _replies(_experiment(8, **changes)), _replies(_experiment(1, **changes))
    for client, reply in alone.items():
        _assert_close(stacks[client], reply)


def test_few_steps_are_equal_work_whatever_else_a_client_has(
    done_together: list[list[int]],
) -> None:
    few = TrainingConfig(local_steps=1, batch_size=4)
    stacks, alone = _replies(_experiment(8, training=few)), _replies(_experiment(1, training=few))
    assert done_together == [[8, 6, 8, 8, 5]]
    for client, reply in alone.items():
        _assert_close(stacks[client], reply)


def test_who_has_nothing_to_train_on_fails_as_ever() -> None:
    full = TrainingConfig(batch_size="full")
    nothing = tiny_data((8, 0, 0, 8, 5), (2,) * 5)
    stacks = _replies(_experiment(8, training=full), nothing)
    alone = _replies(_experiment(1, training=full), nothing)
    assert [reply.has_error() for reply in stacks.values()] == [
        reply.has_error() for reply in alone.values()
    ]
    assert list(stacks) == list(alone)
    _assert_close(stacks[0], alone[0])


def _two_trainings(job: Job) -> None:
    middle = job.train(steps=1)
    job.state["middle"] = middle
    job.send(job.train(middle, steps=2, pull=0.1))


def _loss_first(job: Job) -> None:
    before = job.loss(job.model)
    job.send(job.train(), numbers={"before": before})


def _changes_its_mind(calls: list[int]) -> Callable[[Job], None]:
    def run(job: Job) -> None:
        calls.append(job.client)
        job.send(job.train(pull=0.1 * len(calls)))

    return run


def _pulled(by: float) -> Callable[[Job], None]:
    return lambda job: job.send(job.train(pull=by))


def _swallows(job: Job) -> None:
    try:
        trained = job.train()
    except Exception:
        trained = job.model
    job.send(trained)


def test_the_first_of_several_trainings_is_done_ahead(done_together: list[list[int]]) -> None:
    stacks = _replies(played_by(_two_trainings, **_changes(8)))
    alone = _replies(played_by(_two_trainings, **_changes(1)))
    assert done_together == [[8, 8, 8]]
    for client, reply in alone.items():
        _assert_close(stacks[client], reply)


def _changes(stack: int) -> dict[str, Any]:
    return {"clients": ClientsConfig(num=len(SIZES)), "backend": InlineBackend(stack=stack)}


def test_who_computes_a_loss_first_is_trained_alone(done_together: list[list[int]]) -> None:
    stacks = _replies(played_by(_loss_first, **_changes(8)))
    alone = _replies(played_by(_loss_first, **_changes(1)))
    assert done_together == []
    for client, reply in alone.items():
        assert same_weights(_weights(stacks[client]), _weights(reply))


def test_who_asks_for_something_else_when_it_counts_gets_that() -> None:
    calls: list[int] = []
    replies = _replies(played_by(_changes_its_mind(calls), **_changes(8)))
    assert sorted(calls) == [0, 0, 1, 2, 2, 3, 3, 4]
    for client, count in ((0, calls.index(0, 3)), (1, calls.index(1))):
        (expected,) = _replies(
            played_by(_pulled(0.1 * (count + 1)), **_changes(1)),
            orders={client: Order(initial_weights(_experiment(1)))},
        ).values()
        assert same_weights(_weights(replies[client]), _weights(expected))


def test_a_client_that_catches_errors_is_not_fooled() -> None:
    stacks = _replies(played_by(_swallows, **_changes(8)))
    alone = _replies(_experiment(1))
    for client, reply in alone.items():
        _assert_close(stacks[client], reply)


def test_a_client_that_fails_fails_alone(done_together: list[list[int]]) -> None:
    experiment = _experiment(8)
    order = Order(initial_weights(experiment))
    replies = _replies(experiment, with_fault(_data(), 2))
    assert replies[2].has_error()
    assert done_together == [[8, 8]]
    # Where the other one of two fails, too, who is left has the bits that it would have beside them.
    pair = _replies(experiment, with_fault(_data(), 2), orders=dict.fromkeys((2, 3), order))
    assert same_weights(_weights(pair[3]), _weights(replies[3]))
    alone = _replies(_experiment(1))
    for client in (0, 1, 3, 4):
        _assert_close(replies[client], alone[client])


def test_weights_of_a_wrong_shape_fail_their_own_client_alone() -> None:
    experiment = _experiment(8)
    good = Order(initial_weights(experiment))
    bad = Order({name: array[..., :1] for name, array in good.weights.items()})
    replies = _replies(experiment, orders={0: good, 2: bad, 3: good})
    alone = _replies(_experiment(1), orders={0: good, 2: bad, 3: good})
    assert replies[2].error.reason == alone[2].error.reason
    for client in (0, 3):
        assert same_weights(_weights(replies[client]), _weights(alone[client]))


def test_why_nobody_is_stacked_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> None:
        raise AloneError("the model holds buffers (mean)")

    monkeypatch.setattr(TorchTrainer, "train_together", refuse)
    replies = _replies(_experiment(2, clients=ClientsConfig(num=4)), tiny_data((4,) * 4, (2,) * 4))
    assert not any(reply.has_error() for reply in replies.values())
    assert [record.getMessage() for record in caplog.records] == [
        "backend.stack: clients are trained one by one: the model holds buffers (mean)"
    ]


@pytest.mark.parametrize(
    ("loads", "most", "expected"),
    [
        ("aaaa", 1, ["a", "a", "a", "a"]),
        ("abab", 4, ["aa", "bb"]),
        ("aaaaaaaaa", 8, ["aaaa", "aaaaa"]),
        ("aaa", 2, ["aaa"]),
        ("aabaaa", 2, ["aa", "aaa", "b"]),
        ("a--a", 4, ["aa", "-", "-"]),
        ("", 4, []),
    ],
)
def test_stacks_are_few_and_even(loads: str, most: int, expected: list[str]) -> None:
    found = stacked(list(loads), lambda item: None if item == "-" else item, most)
    assert ["".join(stack) for stack in found] == expected


# --- a GPU, as it would be --------------------------------------------------------------------------


def test_the_first_client_on_a_gpu_shows_how_many_fit(
    monkeypatch: pytest.MonkeyPatch, done_together: list[list[int]]
) -> None:
    trained: list[int] = []
    real = TorchTrainer.train

    def train(self: TorchTrainer, start: Weights, examples: Any, *rest: Any) -> Any:
        trained.append(len(examples))
        return real(self, start, examples, *rest)

    monkeypatch.setattr(TorchTrainer, "train", train)
    monkeypatch.setattr(TorchTrainer, "at_once", property(lambda _: 2 if trained else None))
    monkeypatch.setattr("fedexp.federation.together.pick_device", lambda _: torch.device("cuda"))
    five = _experiment(None, clients=ClientsConfig(num=5))
    replies = _replies(five, tiny_data((8,) * 5, (2,) * 5))
    assert trained == [8]
    assert done_together == [[8, 8], [8, 8]]
    assert list(replies) == [0, 1, 2, 3, 4]


# --- whole runs -----------------------------------------------------------------------------------

RUN = ("strategy=scaffold", "clients=cross_silo", "clients.num=7", "partition=iid")


@pytest.mark.slow
def test_a_run_ends_where_one_by_one_ends(tmp_path: Path, done_together: list[list[int]]) -> None:
    one, four = (run_small(tmp_path / f"{n}", *RUN, f"backend.stack={n}") for n in (1, 4))
    assert {len(sizes) for sizes in done_together} == {
        3,
        4,
    }  # 4,000 images: four have 571, three 572
    numbers = [metrics(folder)["value"].to_numpy() for folder in (one, four)]
    assert numbers[1] == pytest.approx(numbers[0], rel=1e-5)
    assert summary(one)["model_sha256"] != summary(four)["model_sha256"]


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_to_the_bit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], done_together: list[list[int]]
) -> None:
    whole, cut = killed_at("told 3", tmp_path, *RUN, "backend.stack=3")
    assert done_together
    one_by_one = shutil.copytree(cut, tmp_path / "one by one")
    code, _, complaints = resumed(capsys, one_by_one, "backend.stack=1")
    assert code == 2
    assert "backend.stack" in complaints
    assert resumed(capsys, cut)[0] == 0
    assert_same_run(whole, cut)


@pytest.mark.slow
@pytest.mark.usefixtures("two_workers")
def test_workers_stack_clients_to_the_same_bits(tmp_path: Path) -> None:
    inline = run_small(tmp_path / "inline", *RUN, "backend.stack=3")
    workers = ("backend=ray", "backend.workers=2", "backend.stack=4")
    assert (
        summary(run_small(tmp_path / "ray", *RUN, *workers))["model_sha256"]
        == (summary(inline)["model_sha256"])
    )
