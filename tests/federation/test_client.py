"""What a client does with an order: the whole node, on random images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Message, MetricRecord
from support.helpers import (
    Clients,
    HalfFrozen,
    config,
    initial_weights,
    played_by,
    same_weights,
    tiny_data,
    weights_of,
    with_fault,
)
from torch import Tensor, nn

from fedexp.config.clients import ByzantineConfig, ClientsConfig
from fedexp.config.schema import Config
from fedexp.config.training import TrainingConfig
from fedexp.core.roles import Client, Job, Order
from fedexp.core.seeding import derive_seed
from fedexp.core.weights import Weights
from fedexp.data.examples import Examples, Spec
from fedexp.data.federated import FederatedData
from fedexp.datasets.cifar10 import Cifar10
from fedexp.datasets.mnist5k import Mnist5k
from fedexp.federation.client import ClientNode
from fedexp.federation.faults import DroppedOutError, byzantine_clients
from fedexp.federation.job import ClientJob
from fedexp.federation.measuring import measures
from fedexp.flower.messages import weights_in
from fedexp.models import Model
from fedexp.models.layers import fully_connected
from fedexp.models.mlp import Mlp
from fedexp.strategies import Strategy
from fedexp.strategies.qfedavg import QFedAvg
from fedexp.strategies.scaffold import Scaffold
from fedexp.training.device import limited_threads, pick_device
from fedexp.training.loop import Work, num_steps, train
from fedexp.training.network import build_network


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with limited_threads(1):  # as clients have it; results depend on it in the last bits
        yield


def _call(
    client: int,
    weights: Weights,
    data: FederatedData,
    *,
    server_round: int = 1,
    kind: str = "train",
    experiment: Config | None = None,
    **order: Any,
) -> Message:
    clients = Clients(experiment or config(), data)
    reply = clients.call(client, server_round, Order(weights, **order), kind)
    assert not reply.has_error(), reply.error
    return reply


def _initial() -> Weights:
    return initial_weights(config())


def _sent(reply: Message) -> Weights:
    return weights_in(reply.content, "arrays")


def _metrics(reply: Message) -> dict[str, Any]:
    return dict(reply.content.metric_records["metrics"])


def _zeros() -> Weights:
    return {name: np.zeros_like(array) for name, array in _initial().items()}


# --- training -------------------------------------------------------------------------------------


def _train_by_hand(
    start: Weights,
    examples: Examples,
    generator: torch.Generator,
    experiment: Config | None = None,
    only: Sequence[str] | None = None,
    **work: Any,
) -> tuple[Weights, float]:
    """Call the training loop itself."""
    experiment = experiment or config()
    training, dataset = experiment.training, experiment.dataset
    device = pick_device(experiment.backend)
    network = build_network(experiment.model, dataset.spec, 0, device, dataset.prepare)
    network.load(start)
    moving = {n: p for n, p in network.parameters.items() if only is None or n in only}
    given = {"steps": num_steps(training, len(examples)), "learning_rate": training.learning_rate}
    todo = Work(**{**given, **work})
    loss = train(network, moving, examples, dataset, training, todo, generator, device)
    return network.weights(), loss


def _generator(server_round: int, client: int) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(0, "train", server_round, client))


def test_training_is_the_training_loop_on_the_clients_own_examples() -> None:
    data = tiny_data()
    reply = _call(1, _initial(), data, server_round=3)
    own = data.train.subset(np.arange(4, 12))  # client 1's 8 examples follow client 0's 4
    weights, loss = _train_by_hand(_initial(), own, _generator(3, 1))
    assert same_weights(_sent(reply), weights)
    assert _metrics(reply) == {"num-examples": 8, "train_loss": loss}


def test_a_reply_depends_on_round_and_client_and_on_nothing_else() -> None:
    data = tiny_data()
    first = _sent(_call(2, _initial(), data))
    _call(0, _initial(), data)  # what ran in between must not matter
    assert same_weights(first, _sent(_call(2, _initial(), data)))
    assert not same_weights(first, _sent(_call(2, _initial(), data, server_round=2)))


def test_clients_of_one_process_do_not_get_in_each_others_way() -> None:
    data = tiny_data()
    together, alone = Clients(config(), data), _call(2, _initial(), data)
    for client in (0, 1):
        together.call(client, 1, Order(_initial()))
    assert same_weights(_sent(together.call(2, 1, Order(_initial()))), _sent(alone))


def test_two_models_in_one_process_do_not_share_a_module() -> None:
    data, wide = tiny_data(), config(model=Mlp(hidden=[5]))
    before = _sent(_call(0, _initial(), data))
    reply = _call(0, initial_weights(wide), data, experiment=wide)
    assert _sent(reply)["1.weight"].shape == (5, 784)
    assert same_weights(before, _sent(_call(0, _initial(), data)))


def test_centralized_trains_on_the_unions_examples_for_as_long_as_its_clients_would(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, seen = tiny_data(), list[tuple[int, int]]()

    def watch(network: Any, moving: Any, examples: Any, *rest: Any) -> float:
        (work,) = (part for part in rest if isinstance(part, Work))
        seen.append((len(examples), work.steps))
        return train(network, moving, examples, *rest)

    monkeypatch.setattr("fedexp.training.torch_trainer.train", watch)
    for training in (
        TrainingConfig(local_epochs=2, batch_size=4),
        TrainingConfig(local_steps=5, batch_size=4),
    ):
        experiment = config(training=training)
        reply = _call(0, _initial(), data, experiment=experiment, examples_of=(0, 2))
        assert _metrics(reply)["num-examples"] == 10
    # Clients 0 and 2 hold 4 + 6 examples: two epochs of three batches, or five steps for each of them.
    assert seen == [(10, 6), (10, 10)]


def test_the_rate_of_a_round_is_what_it_has_decayed_to() -> None:
    data = tiny_data()
    decayed = _changed(ClientsConfig(num=3), learning_rate=0.08, learning_rate_decay=0.5)
    plain = _changed(ClientsConfig(num=3), learning_rate=0.02)
    found, wanted = (
        _call(1, _initial(), data, server_round=3, experiment=e) for e in (decayed, plain)
    )
    assert same_weights(_sent(found), _sent(wanted))


def test_the_loss_of_the_incoming_model_is_taken_before_training() -> None:
    experiment = _changed(ClientsConfig(num=3), strategy=QFedAvg(), local_epochs=30)
    metrics = _metrics(_call(1, _zeros(), tiny_data(), experiment=experiment))
    assert metrics["global-loss"] == pytest.approx(math.log(10), abs=1e-6)
    assert metrics["train_loss"] < 1


def test_with_momentum_a_control_variate_divides_by_the_gradient_mass() -> None:
    before, data = _initial(), tiny_data()
    experiment = _changed(
        ClientsConfig(num=3), strategy=Scaffold(), momentum=0.9, learning_rate=0.1
    )
    reply = _call(1, before, data, experiment=experiment, arrays={"control": _zeros()})
    after, change = _sent(reply), weights_in(reply.content, "control")
    # Two steps of four images: the first gradient counts 1.9 times, the second once.
    for name, start in before.items():
        np.testing.assert_allclose(change[name], (start - after[name]) / (0.1 * 2.9), rtol=1e-4)


@pytest.mark.parametrize("wanted", [True, False])
def test_photographs_are_augmented_where_they_are_trained_on(
    wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int, bool]] = []

    def watch(images: Tensor, generator: torch.Generator, padding: int, flip: bool) -> Tensor:
        seen.append((len(images), padding, flip))
        return images

    monkeypatch.setattr("fedexp.data.augment.augment", watch)
    experiment = config(dataset=Cifar10(augment=wanted))
    digits, rng = tiny_data(), np.random.default_rng(0)
    train_set, test_set = (
        Examples(rng.integers(0, 256, (len(part), 3, 32, 32), dtype=np.uint8), part.targets)
        for part in (digits.train, digits.test)
    )
    data = replace(digits, spec=experiment.dataset.spec, train=train_set, test=test_set)
    weights = initial_weights(experiment)
    _call(0, weights, data, experiment=experiment, kind="evaluate")
    assert seen == []  # a test is on the photographs as they are
    _call(0, weights, data, experiment=experiment)
    assert seen == ([(4, 4, True)] if wanted else [])


# --- evaluation -----------------------------------------------------------------------------------


def test_evaluation_of_zero_weights_is_the_share_of_label_0() -> None:
    data = tiny_data()
    metrics = _metrics(_call(1, _zeros(), data, kind="evaluate"))
    labels = data.test.targets[3:8]  # client 1's 5 test images follow client 0's 3
    assert list(metrics) == ["num-examples", "loss", "accuracy"]
    assert metrics["num-examples"] == 5
    # All logits are equal: the loss of every image is ln 10 and the first label is predicted.
    assert metrics["loss"] == pytest.approx(math.log(10), abs=1e-6)
    assert metrics["accuracy"] == (labels == 0).mean()


def test_evaluation_on_no_image_has_no_weight() -> None:
    reply = _call(1, _initial(), tiny_data(test_sizes=(4, 0, 6)), kind="evaluate")
    expected: dict[str, Any] = {"num-examples": 0, "loss": 0.0, "accuracy": 0.0}
    assert reply.content.metric_records["metrics"] == MetricRecord(expected)


def test_the_metrics_of_a_run_are_measured_on_clients_too() -> None:
    experiment = config(metrics=["macro_f1"])
    for sizes, count in (((3, 5, 2), 5), ((4, 0, 6), 0)):
        data = tiny_data(test_sizes=sizes)
        metrics = _metrics(_call(1, _initial(), data, kind="evaluate", experiment=experiment))
        assert sorted(metrics) == ["accuracy", "loss", "macro_f1", "num-examples"]
        assert metrics["num-examples"] == count


# --- what goes wrong ------------------------------------------------------------------------------


def _changed(
    clients: ClientsConfig, *, strategy: Strategy | None = None, **training: Any
) -> Config:
    changes: dict[str, Any] = {} if strategy is None else {"strategy": strategy}
    return config(clients=clients, training=replace(config().training, **training), **changes)


def test_faulty_clients_and_no_others_send_what_they_should_not() -> None:
    data, before = tiny_data(), _initial()
    honest = [_sent(_call(client, before, data)) for client in range(3)]
    flipped_data = replace(data, train=Examples(data.train.inputs, 9 - data.train.targets))
    for kind in ("label_flip", "sign_flip"):
        faults = ByzantineConfig(fraction=0.34, kind=kind, scale=2.0)
        experiment = _changed(ClientsConfig(num=3, byzantine=faults))
        (faulty,) = byzantine_clients(experiment)
        for client in range(3):
            found = _sent(_call(client, before, data, experiment=experiment))
            if client != faulty:
                assert same_weights(found, honest[client])
            elif kind == "label_flip":
                assert same_weights(found, _sent(_call(client, before, flipped_data)))
            else:
                for name, start in before.items():
                    wanted = start - 2 * (honest[client][name] - start)
                    np.testing.assert_allclose(found[name], wanted, atol=1e-6)


def test_clients_that_collude_train_honestly() -> None:
    data, before = tiny_data(), _initial()
    faults = ByzantineConfig(fraction=0.9, kind="little_is_enough")
    experiment = _changed(ClientsConfig(num=3, byzantine=faults))
    for client in range(3):
        found = _sent(_call(client, before, data, experiment=experiment))
        assert same_weights(found, _sent(_call(client, before, data)))


def test_a_client_that_drops_out_says_so_and_the_upper_reference_never_does() -> None:
    data = tiny_data()
    faults = ByzantineConfig(fraction=0.9, kind="label_flip")
    troubled = ClientsConfig(num=3, dropout=0.999, stragglers=1.0, byzantine=faults)
    experiment = _changed(troubled, local_epochs=4)
    reply = Clients(experiment, data).call(1, 1, Order(_initial()))
    assert reply.has_error()
    assert reply.error.reason == "DroppedOutError: clients.dropout=0.999"
    with pytest.raises(DroppedOutError):
        ClientNode(experiment, lambda: data).train(1, 1, Order(_initial()), {})
    union, sound = (
        _sent(_call(0, _initial(), data, experiment=e, examples_of=(0, 1, 2)))
        for e in (experiment, _changed(ClientsConfig(num=3), local_epochs=4))
    )
    assert same_weights(union, sound)


def test_a_straggler_trains_for_fewer_epochs() -> None:
    late = _changed(ClientsConfig(num=3, stragglers=1.0), local_epochs=2)
    found = _sent(_call(1, _initial(), tiny_data(), experiment=late))
    assert same_weights(found, _sent(_call(1, _initial(), tiny_data())))  # for one, of two


def test_a_client_touches_its_own_data_only() -> None:
    data = with_fault(tiny_data(), bad_client=1)
    assert not _call(0, _initial(), data).has_error()
    with pytest.raises(ValueError, match="disk of client 1"):
        ClientNode(config(), lambda: data).train(1, 1, Order(_initial()), {})


# --- a job ----------------------------------------------------------------------------------------


def _one_job(
    *,
    experiment: Config | None = None,
    weights: Weights | None = None,
    steps: int | None = None,
    server_round: int = 1,
) -> tuple[ClientJob, Examples]:
    """Return client 1's job and its 8 examples."""
    experiment, data = experiment or config(), tiny_data()
    examples = data.train_examples([1])
    order = Order(initial_weights(experiment) if weights is None else weights)
    node = ClientNode(experiment, lambda: data)
    job = ClientJob(
        node,
        1,
        server_round,
        order,
        {},
        examples,
        num_steps(experiment.training, 8) if steps is None else steps,
    )
    return job, examples


WHOLE = config(training=TrainingConfig(local_steps=1, batch_size="full", momentum=0.0))
"""One step on all examples at once: the mean gradient."""
RATE = WHOLE.training.learning_rate


def _close(found: Weights, wanted: Weights) -> None:
    assert list(found) == list(wanted)
    for name, array in found.items():
        np.testing.assert_allclose(array, wanted[name], rtol=1e-5, atol=1e-7)


def test_a_job_says_what_is_to_be_done() -> None:
    training = TrainingConfig(
        local_steps=7, learning_rate=0.5, learning_rate_decay=0.1, momentum=0.25
    )
    job, _ = _one_job(experiment=config(training=training), server_round=3)
    assert (job.client, job.round, job.num_examples, job.steps) == (1, 3, 8, 7)
    assert job.learning_rate == pytest.approx(0.005)
    assert job.momentum == 0.25
    assert job.model is job.order.weights
    assert job.parameters == ("1.weight", "1.bias")
    assert job.state == {}


def test_training_leaves_the_model_alone_and_returns_a_copy() -> None:
    job, _ = _one_job()
    before = {name: array.copy() for name, array in job.model.items()}
    first = job.train()
    kept = {name: array.copy() for name, array in first.items()}
    second = job.train()
    assert same_weights(job.model, before)
    assert same_weights(first, kept)
    assert not any(np.shares_memory(first[name], second[name]) for name in first)


def test_several_trainings_go_on_with_the_same_chance() -> None:
    # An epoch of two batches of four, then two more steps from where it came to.
    job, own = _one_job()
    generator = _generator(1, 1)
    first, _ = _train_by_hand(job.model, own, generator)
    second, loss = _train_by_hand(first, own, generator, steps=1)
    assert same_weights(job.train(), first)
    assert same_weights(job.train(first, steps=1), second)
    job.send(second)
    assert job.reply().loss == loss  # of the last training
    fresh, _ = _train_by_hand(first, own, _generator(1, 1), steps=1)
    assert not same_weights(fresh, second)


def test_training_may_start_elsewhere() -> None:
    job, own = _one_job()
    wanted, _ = _train_by_hand(_zeros(), own, _generator(1, 1))
    assert same_weights(job.train(_zeros()), wanted)


@pytest.mark.parametrize("only", [["1.bias"], ["1.weight"], ["1.bias", "1.weight"]])
def test_only_some_parameters_move(only: list[str]) -> None:
    job, own = _one_job()
    found = job.train(only=only)
    wanted, _ = _train_by_hand(job.model, own, _generator(1, 1), only=only)
    assert same_weights(found, wanted)
    for name, array in found.items():
        assert (array.tobytes() != job.model[name].tobytes()) == (name in only)


@pytest.mark.parametrize("only", [["absent"], ["1.bias", "absent"], []])
def test_there_must_be_something_to_move_and_it_must_exist(only: list[str]) -> None:
    job, _ = _one_job()
    with pytest.raises(ValueError, match="only"):
        job.train(only=only)


def test_no_steps_are_not_all_of_them() -> None:
    job, _ = _one_job()
    with pytest.raises(ValueError, match="steps"):
        job.train(steps=0)


def test_the_others_move_again_afterwards() -> None:
    job, own = _one_job()
    generator = _generator(1, 1)
    first, _ = _train_by_hand(job.model, own, generator, only=["1.bias"])
    second, _ = _train_by_hand(first, own, generator)
    assert same_weights(job.train(job.train(only=["1.bias"])), second)


def _alike(start: Weights | None = None, **how: Any) -> Weights:
    """Return where one step on all examples leads to."""
    job, _ = _one_job(experiment=WHOLE)
    return job.train(start, **how)


def test_a_pull_is_to_the_model_that_was_sent() -> None:
    model = _initial()
    # Where training starts there is nothing to pull back from.
    _close(_alike(pull=0.5), _alike())
    away = {name: array + np.float32(2) for name, array in model.items()}
    wanted = {name: array - RATE * 0.5 * 2 for name, array in _alike(away).items()}
    _close(_alike(away, pull=0.5), wanted)


def test_a_pull_may_be_to_anything() -> None:
    model = _initial()
    aim = {name: array - np.float32(3) for name, array in model.items()}
    wanted = {name: array - RATE * 0.5 * 3 for name, array in _alike().items()}
    _close(_alike(pull=0.5, toward=aim), wanted)
    assert same_weights(_alike(toward=aim), _alike())  # no pull, no effect


def test_a_pull_of_two_steps_is_fedproxs() -> None:
    job, own = _one_job()
    wanted, _ = _train_by_hand(job.model, own, _generator(1, 1), pull=5.0, toward=job.model)
    assert same_weights(job.train(pull=5.0), wanted)
    assert not same_weights(wanted, _one_job()[0].train())


def test_a_correction_goes_into_every_gradient() -> None:
    shift = {name: np.full_like(array, 4.0) for name, array in _initial().items()}
    wanted = {name: array - RATE * 4.0 for name, array in _alike().items()}
    _close(_alike(correction=shift), wanted)


def test_a_correction_is_of_what_moves() -> None:
    shift = {"1.bias": np.full(10, 4.0, np.float32)}
    plain, corrected = _alike(only=["1.bias"]), _alike(only=["1.bias"], correction=shift)
    _close(corrected, {**plain, "1.bias": plain["1.bias"] - np.float32(RATE * 4.0)})


def test_the_loss_of_a_model_is_the_mean_over_the_clients_training_examples() -> None:
    job, own = _one_job()
    assert job.loss(_zeros()) == pytest.approx(math.log(10), abs=1e-6)
    # Logits of the bias alone: 1 for label 3, 0 for the others.
    biased = _zeros()
    biased["1.bias"][3] = 1.0
    share = (own.targets == 3).mean()
    assert job.loss(biased) == pytest.approx(math.log(9 + math.e) - share, abs=1e-6)


def test_asking_for_a_loss_does_not_change_the_training() -> None:
    job, _ = _one_job()
    job.loss(_zeros())
    found = job.train()
    job.loss(found)
    job.send(found)
    other, _ = _one_job()
    assert same_weights(found, other.train())
    other.send(found)
    assert job.reply().loss == other.reply().loss


def test_what_is_sent() -> None:
    job, _ = _one_job()
    job.send(job.train(), arrays={"control": weights_of(1.0)}, numbers={"norm": 2.5, "count": 3})
    reply = job.reply()
    assert reply.num_examples == 8
    assert reply.loss is not None
    assert list(reply.arrays) == ["control"]
    assert reply.numbers == {"norm": 2.5, "count": 3}


def test_who_does_not_train_reports_no_loss() -> None:
    job, _ = _one_job()
    job.send(job.model)
    assert job.reply().loss is None
    assert job.reply().weights is job.model


def test_an_answer_is_given_once() -> None:
    job, _ = _one_job()
    job.send(job.model, numbers={"norm": 1.0})
    with pytest.raises(ValueError, match="once a round"):
        job.send(job.model, numbers={"norm": 2.0})
    assert job.reply().numbers == {"norm": 1.0}


@pytest.mark.parametrize("where", ["arrays", "numbers"])
@pytest.mark.parametrize("name", ["arrays", "config", "metrics", "num-examples", "train_loss"])
def test_names_of_fedexps_own_are_refused(where: str, name: str) -> None:
    job, _ = _one_job()
    with pytest.raises(ValueError, match=f"'{name}' is fedexp's own"):
        job.send(job.model, **{where: {name: 1}})  # type: ignore[arg-type]
    job.send(job.model)  # nothing was sent yet


# --- clients of one's own -------------------------------------------------------------------------


def _reason(experiment: Config) -> str | None:
    reply = Clients(experiment, tiny_data()).call(0, 1, Order(_initial()))
    return reply.error.reason if reply.has_error() else None


def test_a_client_that_never_answers_fails() -> None:
    assert _reason(played_by(lambda job: None)) == (
        "ValueError: the strategy's client never called job.send"
    )
    assert _reason(played_by(lambda job: job.send(job.model))) is None


def test_a_client_that_raises_fails() -> None:
    def fail(job: Job) -> None:
        job.send(job.model)
        raise OSError("disk is full")

    assert _reason(played_by(fail)) == "OSError: disk is full"


def test_a_client_is_sent_words_numbers_and_arrays() -> None:
    heard: list[Job] = []

    def listen(job: Job) -> None:
        heard.append(job)
        job.send(job.model)

    order = Order(
        _initial(), {"mask": weights_of(1.0, 0.0)}, {"rate": 0.5, "count": 3, "word": "a"}
    )
    clients = Clients(played_by(listen), tiny_data())
    reply = clients.call(2, 9, order)
    (job,) = heard
    assert (job.client, job.round, job.num_examples) == (2, 9, 6)
    assert same_weights(job.model, order.weights)
    assert same_weights(job.order.arrays["mask"], order.arrays["mask"])
    assert job.order.numbers == order.numbers
    assert _metrics(reply) == {"num-examples": 6}


def test_state_lasts_and_is_each_clients_own() -> None:
    seen: list[tuple[int, int, Any]] = []

    def count(job: Job) -> None:
        calls = job.state.get("calls", 0)
        assert isinstance(calls, int)
        seen.append((job.client, calls, job.state.get("last")))
        job.state["calls"] = calls + 1
        job.state["last"] = f"round {job.round}"
        job.send(job.model)

    clients = Clients(played_by(count), tiny_data())
    for server_round, client in ((1, 0), (1, 2), (2, 0), (5, 2)):
        clients.call(client, server_round, Order(_initial()))
    assert seen == [(0, 0, None), (2, 0, None), (0, 1, "round 1"), (2, 1, "round 1")]


def test_what_a_client_keeps_is_not_the_servers_memory() -> None:
    kept: list[float] = []

    def keep(job: Job) -> None:
        before = job.state.get("hint")
        if isinstance(before, dict):
            kept.append(float(before["w"][0]))
        job.state["hint"] = job.order.arrays["hint"]
        job.send(job.model)

    clients, hint = Clients(played_by(keep), tiny_data()), weights_of(1.0)
    clients.call(0, 1, Order(_initial(), {"hint": hint}))
    hint["w"][0] = 77.0  # a server that computes in place, as with a momentum of its own
    clients.call(0, 2, Order(_initial(), {"hint": hint}))
    assert kept == [1.0]


def test_a_test_is_of_the_model_that_a_client_has() -> None:
    class Personal(Client):
        def weights_to_test(self, job: Job) -> Weights:
            own = job.state["own"]
            assert isinstance(own, dict)
            return own

    @dataclass(frozen=True)
    class Mine(Strategy):
        name: str = "mine"

        def client(self) -> Client:
            return Personal()

    node, data = ClientNode(config(strategy=Mine()), tiny_data), tiny_data()
    own = _zeros()
    own["1.bias"][int(data.test.targets[3])] = 50.0
    metrics = node.evaluate(1, 1, Order(_zeros()), {"own": own}).numbers
    # The label of its first image is predicted for all five.
    assert metrics["accuracy"] == (data.test.targets[3:8] == data.test.targets[3]).mean()
    assert metrics["loss"] > 1


def test_a_client_that_trains_for_its_test_does_so_on_its_training_examples() -> None:
    found: list[Any] = []

    class Tuned(Client):
        def weights_to_test(self, job: Job) -> Weights:
            found.append((job.num_examples, job.loss(job.model), job.train()))
            return job.model

    @dataclass(frozen=True)
    class Mine(Strategy):
        name: str = "mine"

        def client(self) -> Client:
            return Tuned()

    data, node = tiny_data(), ClientNode(config(strategy=Mine()), tiny_data)
    node.evaluate(1, 1, Order(_initial()), {})
    ((count, loss, weights),) = found
    job, own = _one_job()
    assert len(own) == 8 != len(data.client_test_examples(1))
    assert (count, loss) == (8, job.loss(_initial()))
    assert same_weights(weights, job.train())


# --- models of one's own --------------------------------------------------------------------------


def test_what_does_not_require_gradients_is_no_parameter_of_a_job() -> None:
    experiment = config(model=HalfFrozen())
    job, _ = _one_job(experiment=experiment)
    names = list(job.model)
    assert list(job.parameters) == names[2:]
    trained = job.train()
    moved = [name for name in names if trained[name].tobytes() != job.model[name].tobytes()]
    assert moved == names[2:]


@dataclass(frozen=True)
class Forgetful(Model):
    """Half of the hidden layer is dropped at every step."""

    name: str = "forgetful"

    def build(self, spec: Spec) -> nn.Module:
        *hidden, last = fully_connected([8], spec).children()
        return nn.Sequential(*hidden, nn.Dropout(0.5), last)


def test_a_models_own_chance_is_keyed_on_round_and_client() -> None:
    experiment = config(model=Forgetful())
    weights, data = initial_weights(experiment), tiny_data()
    torch.manual_seed(1)
    first = _sent(_call(1, weights, data, experiment=experiment))
    torch.manual_seed(2)
    state = torch.random.get_rng_state()
    again = _sent(_call(1, weights, data, experiment=experiment))
    assert same_weights(first, again)
    assert torch.equal(torch.random.get_rng_state(), state)  # left as it was
    other = _sent(_call(1, weights, data, experiment=experiment, server_round=2))
    assert not same_weights(first, other)


def test_a_node_measures_models() -> None:
    node, data = ClientNode(config(), tiny_data), tiny_data()
    found = node.measure(_zeros(), data.test, measures(["loss", "accuracy"]))
    assert found["loss"] == pytest.approx(math.log(10), abs=1e-6)
    assert found["accuracy"] == (data.test.targets == 0).mean()
    assert isinstance(node.config.dataset, Mnist5k)
