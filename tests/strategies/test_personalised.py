"""Personalised strategies: identities to the bit, and papers' algorithms written in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from support.helpers import forget_datasets, initial_weights, leave_out_the_rest, same_weights
from support.transcribed import BODY, HEAD, Holder, Net, holders, mean

from fedexp import strategies
from fedexp.config.clients import ClientsConfig
from fedexp.config.schema import Config
from fedexp.config.training import TrainingConfig
from fedexp.core.options import FedexpError
from fedexp.core.roles import Setup, Update, Updates
from fedexp.core.weights import Weights
from fedexp.federation.events import Ending
from fedexp.models.logistic import Logistic
from fedexp.models.mlp import Mlp
from fedexp.partitions.dirichlet import Dirichlet
from fedexp.strategies import Strategy
from fedexp.strategies.apfl import Apfl
from fedexp.strategies.ditto import Ditto
from fedexp.strategies.fedala import FedAla
from fedexp.strategies.fedavg import FedAvg
from fedexp.strategies.fedbabu import FedBabu
from fedexp.strategies.fedper import FedPer
from fedexp.strategies.fedrep import FedRep
from fedexp.strategies.fedrod import FedRod
from fedexp.strategies.finetune import Finetune
from fedexp.strategies.ifca import Ifca, IfcaServer, shuffled
from fedexp.strategies.lgfedavg import LgFedAvg
from fedexp.strategies.local_only import LocalOnly
from fedexp.strategies.perfedavg import PerFedAvg
from fedexp.strategies.pfedme import PFedMe
from fedexp.testing.runs import run, small

RATE, STEPS, ROUNDS, CLIENTS = 0.05, 4, 3, range(3)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_out_the_rest(monkeypatch)
    forget_datasets(monkeypatch)


def _experiment(strategy: Strategy, **changes: Any) -> Config:
    return small(strategy=strategy, rounds=ROUNDS, clients=ClientsConfig(num=3), **changes)


def _plain(strategy: Strategy) -> Config:
    """Return an experiment that takes gradient steps on all of a client's examples."""
    training = TrainingConfig(local_steps=STEPS, batch_size="full", learning_rate=RATE, momentum=0)
    partition = Dirichlet(alpha=1.0)
    return _experiment(strategy, training=training, partition=partition, model=Mlp(hidden=[6]))


def _end(strategy: Strategy, **changes: Any) -> Ending:
    return run(_experiment(strategy, **changes))[0]


@cache
def _federated() -> Ending:
    return _end(FedAvg())


def _own(ending: Ending, client: int) -> Weights:
    assert ending.weights is not None
    prefix = f"{client}/"
    return {
        name.removeprefix(prefix): array
        for name, array in ending.weights.items()
        if name.startswith(prefix)
    }


# Identities


@pytest.mark.parametrize("alone", [Ditto(lam=0.0), Apfl(alpha=1.0)])
def test_what_nobody_shares_is_isolated_training(alone: Strategy) -> None:
    found, isolated = _end(alone), _end(LocalOnly())
    assert found.summary["model_sha256"] == isolated.summary["model_sha256"]


@pytest.mark.parametrize(
    "shared",
    [
        FedPer(personal_layers=[]),
        Apfl(alpha=0.0),
        FedAla(eta=0.0),
        LgFedAvg(shared_layers=["1", "3"]),
        Ifca(num_clusters=1),
    ],
)
def test_what_nobody_keeps_is_fedavg(shared: Strategy) -> None:
    found, federated = _end(shared), _federated()
    assert federated.weights is not None
    for client in CLIENTS:
        own = _own(found, client)
        assert list(own) == list(federated.weights)
        assert same_weights(own, federated.weights)


@pytest.mark.parametrize("strategy", [Finetune(), Ditto(), Apfl(), FedAla(eta=0.0)])
def test_the_global_model_beside_the_personal_ones_is_fedavgs(strategy: Strategy) -> None:
    found, federated = _end(strategy), _federated()
    mine = [row for row in found.further if row.model == "global"]
    assert mine == list(federated.measurements)
    assert {row.split for row in mine} == {"client_test"}


def test_finetuning_is_fedavg_and_some_more_steps() -> None:
    clients = ClientsConfig(num=3, tuned_steps=5)
    federated = run(replace(_experiment(FedAvg()), clients=clients))[0]
    tuned = [row._replace(model="local") for row in federated.further]
    assert tuned == list(_end(Finetune(tuning_steps=5)).measurements)
    assert tuned != list(_end(Finetune(tuning_steps=4)).measurements)


def test_only_the_head_is_tuned_if_so_asked() -> None:
    found, federated = _end(Finetune(tuned="head")), _federated().weights
    assert federated is not None
    own = _own(found, 1)
    changed = [name for name in own if not np.array_equal(own[name], federated[name])]
    assert changed == list(HEAD)


# Papers' algorithms


def _head(net: Net) -> Net:
    return {name: net[name] for name in HEAD}


def _body(net: Net) -> Net:
    return {name: net[name] for name in BODY}


Algorithm = Callable[[list[Holder], Net], list[Net]]
"""From the clients and the initial weights to the models that clients are tested with."""


def _fedper(clients: list[Holder], net: Net) -> list[Net]:
    counts, heads = [len(c.labels) for c in clients], [_head(net) for _ in clients]
    for _ in range(ROUNDS):
        trained = [
            c.sgd({**net, **head}, RATE, STEPS) for c, head in zip(clients, heads, strict=True)
        ]
        heads, net = (
            [_head(t) for t in trained],
            {**net, **mean([_body(t) for t in trained], counts)},
        )
    return [{**net, **head} for head in heads]


def _lgfedavg(clients: list[Holder], net: Net) -> list[Net]:
    counts, bodies = [len(c.labels) for c in clients], [_body(net) for _ in clients]
    for _ in range(ROUNDS):
        trained = [
            c.sgd({**net, **body}, RATE, STEPS) for c, body in zip(clients, bodies, strict=True)
        ]
        bodies, net = (
            [_body(t) for t in trained],
            {**net, **mean([_head(t) for t in trained], counts)},
        )
    return [{**net, **body} for body in bodies]


def _fedrep(clients: list[Holder], net: Net) -> list[Net]:
    counts, heads = [len(c.labels) for c in clients], [_head(net) for _ in clients]
    for _ in range(ROUNDS):
        tuned = [
            c.sgd({**net, **head}, RATE, 3, HEAD) for c, head in zip(clients, heads, strict=True)
        ]
        trained = [c.sgd(t, RATE, 1, BODY) for c, t in zip(clients, tuned, strict=True)]
        heads, net = (
            [_head(t) for t in trained],
            {**net, **mean([_body(t) for t in trained], counts)},
        )
    return [{**net, **head} for head in heads]


def _fedbabu(clients: list[Holder], net: Net) -> list[Net]:
    counts = [len(c.labels) for c in clients]
    for _ in range(ROUNDS):
        net = mean([c.sgd(net, RATE, STEPS, BODY) for c in clients], counts)
    return [c.sgd(net, RATE, 2) for c in clients]


def _ditto(clients: list[Holder], net: Net) -> list[Net]:
    counts, own = [len(c.labels) for c in clients], [dict(net) for _ in clients]
    for _ in range(ROUNDS):
        for k, c in enumerate(clients):
            for _ in range(STEPS):
                slope = c.gradient(own[k])
                own[k] = {n: v - RATE * (slope[n] + 0.7 * (v - net[n])) for n, v in own[k].items()}
        net = mean([c.sgd(net, RATE, STEPS) for c in clients], counts)
    return own


def _apfl(clients: list[Holder], net: Net) -> list[Net]:
    alpha, counts = 0.3, [len(c.labels) for c in clients]
    own = [dict(net) for _ in clients]
    for _ in range(ROUNDS):
        local = [dict(net) for _ in clients]
        for k, c in enumerate(clients):
            for _ in range(STEPS):
                v, w = own[k], local[k]
                mixture = {n: alpha * v[n] + (1 - alpha) * w[n] for n in v}
                by_w, by_mixture = c.gradient(w), c.gradient(mixture)
                local[k] = {n: w[n] - RATE * by_w[n] for n in w}
                own[k] = {n: v[n] - RATE * alpha * by_mixture[n] for n in v}
        net = mean(local, counts)
    return [{n: alpha * v[n] + (1 - alpha) * net[n] for n in v} for v in own]


def _fedala(clients: list[Holder], net: Net) -> list[Net]:
    counts = [len(c.labels) for c in clients]
    own: list[Net] = []
    factors = [{n: np.ones_like(net[n]) for n in HEAD} for _ in clients]
    learned = [False for _ in clients]

    def adapt(k: int, keep: bool) -> Net:
        mine, epochs, losses = dict(factors[k]), 0, list[float]()
        while True:
            start = {**net, **{n: own[k][n] + (net[n] - own[k][n]) * mine[n] for n in HEAD}}
            losses.append(clients[k].loss(start))
            slope = clients[k].gradient(start)
            mine = {
                n: np.clip(w - 20.0 * slope[n] * (net[n] - own[k][n]), 0, 1)
                for n, w in mine.items()
            }
            epochs += 1
            if learned[k] or epochs == 50 or (epochs > 10 and np.std(losses[-10:]) < 0.1):
                break
        if keep:
            factors[k], learned[k] = mine, True
        return {**net, **{n: own[k][n] + (net[n] - own[k][n]) * mine[n] for n in HEAD}}

    for t in range(ROUNDS):
        starts = [adapt(k, True) if t else dict(net) for k in range(len(clients))]
        own = [c.sgd(start, RATE, STEPS) for c, start in zip(clients, starts, strict=True)]
        net = mean(own, counts)
    return [adapt(k, False) for k in range(len(clients))]


def _pfedme(clients: list[Holder], net: Net) -> list[Net]:
    lam, eta, inner, beta = 10.0, 0.01, 3, 0.8
    own: list[Net] = []
    for _ in range(ROUNDS):
        copies, own = [dict(net) for _ in clients], [dict(net) for _ in clients]
        for k, c in enumerate(clients):
            for _ in range(STEPS):
                for _ in range(inner):
                    slope = c.gradient(own[k])
                    own[k] = {
                        n: v - RATE * (slope[n] + lam * (v - copies[k][n]))
                        for n, v in own[k].items()
                    }
                copies[k] = {n: w - eta * lam * (w - own[k][n]) for n, w in copies[k].items()}
        together = mean(copies, [1] * len(clients))
        net = {n: (1 - beta) * w + beta * together[n] for n, w in net.items()}
    return own


def _perfedavg(clients: list[Holder], net: Net) -> list[Net]:
    alpha, counts = 0.2, [len(c.labels) for c in clients]
    for _ in range(ROUNDS):
        trained = [dict(net) for _ in clients]
        for k, c in enumerate(clients):
            for _ in range(STEPS):  # every batch is all of the client's examples
                ahead = c.sgd(trained[k], alpha, 1)
                slope = c.gradient(ahead)
                trained[k] = {n: w - RATE * slope[n] for n, w in trained[k].items()}
        net = mean(trained, counts)
    return [c.sgd(net, alpha, 2) for c in clients]


def _fedrod(clients: list[Holder], net: Net) -> list[Net]:
    counts = [len(c.labels) for c in clients]
    heads = [{n: np.zeros_like(net[n]) for n in HEAD} for _ in clients]
    for _ in range(ROUNDS):
        trained = []
        for k, c in enumerate(clients):
            held = np.bincount(c.labels, minlength=10)
            generic = dict(net)
            for _ in range(STEPS):
                odds = held * np.exp(c.logits(generic))  # balanced softmax: odds times counts
                odds = odds / odds.sum(axis=1, keepdims=True)
                slope = c.gradient(generic, (odds - np.eye(10)[c.labels]) / counts[k])
                generic = {n: w - RATE * slope[n] for n, w in generic.items()}
            both = {**generic, **{n: generic[n] + heads[k][n] for n in HEAD}}
            tuned = c.sgd(both, RATE, STEPS, HEAD)
            heads[k] = {n: tuned[n] - generic[n] for n in HEAD}
            trained.append(generic)
        net = mean(trained, counts)
    return [{**net, **{n: net[n] + head[n] for n in HEAD}} for head in heads]


def _ifca(clients: list[Holder], net: Net) -> list[Net]:
    models = [net, shuffled(net, list(net), _plain(FedAvg()).seed, 1)]

    def choice(client: Holder) -> int:
        return int(np.argmin([client.loss(model) for model in models]))

    for _ in range(ROUNDS):
        chosen = [choice(c) for c in clients]
        trained = [c.sgd(models[k], RATE, STEPS) for c, k in zip(clients, chosen, strict=True)]
        for k in set(chosen):
            members = [place for place, choice in enumerate(chosen) if choice == k]
            counts = [len(clients[place].labels) for place in members]
            models[k] = mean([trained[place] for place in members], counts)
    return [models[choice(c)] for c in clients]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "algorithm"),
    [
        (FedPer(), _fedper),
        (LgFedAvg(), _lgfedavg),
        (FedRep(head_share=0.75), _fedrep),
        (FedBabu(tuning_steps=2), _fedbabu),
        (Ditto(lam=0.7), _ditto),
        (Apfl(alpha=0.3), _apfl),
        (FedAla(eta=20.0, share=1.0), _fedala),
        (PFedMe(lam=10.0, inner_steps=3, eta=0.01, beta=0.8), _pfedme),
        (PerFedAvg(alpha=0.2, adaptation_steps=2), _perfedavg),
        (FedRod(), _fedrod),
        (Ifca(num_clusters=2), _ifca),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_rounds_are_the_papers_algorithm(strategy: Strategy, algorithm: Algorithm) -> None:
    experiment = _plain(strategy)
    ending = run(experiment)[0]
    start = {n: a.astype(np.float64) for n, a in initial_weights(experiment).items()}
    wanted = algorithm(holders(experiment), start)
    for client in CLIENTS:
        own = _own(ending, client)
        assert list(own) == list(start)
        for name, array in own.items():
            assert array.dtype == np.float32
            np.testing.assert_allclose(array, wanted[client][name], atol=2e-5, err_msg=name)
    assert any(np.abs(wanted[0][n] - wanted[1][n]).max() > 1e-3 for n in start)
    assert any(np.abs(wanted[0][n] - start[n]).max() > 1e-3 for n in start)


def test_per_fedavg_adapts_by_plain_steps_whatever_the_optimizer_is() -> None:
    def own(momentum: float) -> list[Weights]:
        config = _plain(PerFedAvg(alpha=0.2, adaptation_steps=3))
        training = replace(
            config.training, momentum=momentum, local_steps=1
        )  # a first step has none
        ending = run(replace(config, training=training))[0]
        return [_own(ending, client) for client in CLIENTS]

    for plain, other in zip(own(0.0), own(0.9), strict=True):
        assert same_weights(plain, other)


# What stays and what is sent


@pytest.mark.slow
def test_what_clients_keep_is_not_traffic() -> None:
    def bytes_up(strategy: Strategy) -> float:
        _, told = run(_experiment(strategy))
        return next(row.value for row in told.measurements if row.metric == "bytes_up")

    whole = bytes_up(FedAvg())
    head = 4 * (8 * 10 + 10) * len(CLIENTS)
    assert bytes_up(FedPer()) == bytes_up(FedBabu()) == whole - head
    assert bytes_up(LgFedAvg()) == head
    assert bytes_up(Ditto()) == whole


@pytest.mark.parametrize("strategy", [FedPer(), FedRep(), FedBabu()])
def test_a_model_of_one_layer_leaves_nothing_to_share(strategy: Strategy) -> None:
    with pytest.raises(FedexpError, match="model=logistic with clients, and nothing is shared"):
        _end(strategy, model=Logistic())


def test_layers_that_are_not_there_are_named() -> None:
    with pytest.raises(FedexpError, match=r"strategy.personal_layers: .*'fc'; it has 1, 3 "):
        _end(FedPer(personal_layers=["fc"]))


@pytest.mark.slow
def test_newcomers_are_tested_by_the_strategys_rule() -> None:
    clients = ClientsConfig(num=5, unseen=0.4)
    alone = {}
    for page in (FedAvg(), Finetune(), FedPer(), LocalOnly()):
        config = replace(_experiment(page), clients=clients)
        ending, told = run(config)
        splits = {row.client: row.split for row in ending.measurements}
        assert list(splits) == [0, 1, 2, 3, 4]
        alone[page.name] = sorted(k or 0 for k, split in splits.items() if split == "newcomer_test")
        trained = {row.client for row in told.measurements if row.model == "local"} - {None}
        if page.kind == strategies.ISOLATED:
            assert trained == {0, 1, 2, 3, 4}
        elif page.personalised:
            assert trained == {0, 1, 2, 3, 4} - set(alone[page.name])
    assert len(alone["fedavg"]) == 2
    assert alone["fedavg"] == alone["finetune"] == alone["fedper"]
    assert alone["local_only"] == []


PERSONALISED = [name for name, page in strategies.REGISTRY.pages().items() if page.personalised]


def test_who_is_personalised() -> None:
    assert set(PERSONALISED) == {
        *("finetune", "fedper", "lgfedavg", "fedrep", "fedbn", "fedbabu", "ditto", "apfl"),
        *("fedala", "pfedme", "perfedavg", "fedrod", "ifca", "fedproto"),
    }


def test_ifca_shuffles_what_is_trained_and_averages_within_clusters() -> None:
    model: Weights = {
        "w": np.arange(12, dtype=np.float32).reshape(3, 4),
        "table": np.arange(5.0, dtype=np.float32),  # frozen
        "count": np.array(7, np.int64),
    }
    server = Ifca(num_clusters=2).server(
        Setup(4, ("w",), frozenset({"count"}), lambda _: 0.1, seed=3)
    )
    order = server.instruct(1, model, [0, 1, 2])[0]
    other = order.arrays["cluster-1"]
    assert order.weights is model
    assert sorted(other["w"].ravel()) == sorted(model["w"].ravel())
    assert not np.array_equal(other["w"], model["w"])
    assert np.array_equal(other["table"], model["table"])

    def update(client: int, cluster: int, value: float, examples: int) -> Update:
        weights = {"w": np.full((3, 4), value, np.float32), "table": model["table"]}
        weights["count"] = np.array(8 + client, np.int64)
        return Update(client, 1, weights, examples, 0.0, numbers={"cluster": cluster})

    sent = [update(0, 1, 1.0, 10), update(1, 1, 4.0, 20), update(2, 0, 9.0, 29)]
    found = server.combine(1, model, Updates(sent))
    assert isinstance(server, IfcaServer)
    assert found is server.clusters[1]  # 30 examples against 29
    assert found["w"].tolist() == [[3.0] * 4] * 3
    assert (found["count"].dtype, found["count"].item()) == (np.dtype(np.int64), 9)
    assert np.array_equal(found["table"], model["table"])
    assert server.clusters[0]["w"].tolist() == [[9.0] * 4] * 3
    server.combine(2, found, Updates([update(0, 0, 2.0, 10)]))
    assert server.clusters[1] is found  # nobody chose it
