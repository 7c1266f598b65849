"""Strategies that change what clients minimise: identities, and papers' algorithms in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from support.helpers import initial_weights, leave_out_the_rest, same_weights
from support.transcribed import Floats, Holder, Net, holders, mean, softmax

from fedexp.config.clients import ClientsConfig
from fedexp.config.composition import compose_config
from fedexp.config.schema import Config
from fedexp.config.training import TrainingConfig
from fedexp.core.options import ConfigError
from fedexp.core.weights import Weights
from fedexp.models.mlp import Mlp
from fedexp.partitions.classes import Classes
from fedexp.strategies import Strategy
from fedexp.strategies.fedavg import FedAvg
from fedexp.strategies.fedcm import FedCm
from fedexp.strategies.feddyn import FedDyn
from fedexp.strategies.fedexp import FedExp
from fedexp.strategies.fedlc import FedLc
from fedexp.strategies.fedntd import FedNtd
from fedexp.strategies.fedsam import FedSam
from fedexp.strategies.moon import Moon
from fedexp.testing.runs import run, small

RATE, STEPS, ROUNDS = 0.05, 3, 3


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_out_the_rest(monkeypatch)


def _plain(strategy: Strategy) -> Config:
    training = TrainingConfig(local_steps=STEPS, batch_size="full", learning_rate=RATE, momentum=0)
    return small(
        strategy=strategy, rounds=ROUNDS, clients=ClientsConfig(num=3), training=training,
        partition=Classes(classes_per_client=3), model=Mlp(hidden=[6]),
    )  # fmt: skip


def _final(config: Config) -> Weights:
    weights = run(config)[0].weights
    assert weights is not None
    return weights


@cache
def _federated() -> Weights:
    return _final(small(strategy=FedAvg()))


@pytest.mark.parametrize(
    "strategy",
    [FedNtd(beta=0.0), Moon(mu=0.0), FedSam(rho=0.0), FedCm(alpha=1.0)],
    ids=lambda strategy: strategy.name,
)
def test_without_its_term_a_strategy_is_fedavg(strategy: Strategy) -> None:
    found = _final(small(strategy=strategy))
    for name, array in _federated().items():
        # Their losses are other sums of the same numbers.
        np.testing.assert_allclose(found[name], array, atol=1e-6)


@pytest.mark.parametrize("strategy", [FedSam(rho=0.0), FedCm(alpha=1.0), FedDyn(alpha=0.0)])
def test_without_its_term_a_strategy_is_fedavg_to_the_bit(strategy: Strategy) -> None:
    # All clients hold equally many examples, so that FedDyn's unweighted mean is FedAvg's.
    assert same_weights(_final(small(strategy=strategy)), _federated())


def _all(clients: list[Holder], net: Net, step: Callable[[int, Holder, Net, Net], Net]) -> Net:
    """Return the mean of what clients come to by their own steps: client, examples, w, global."""
    trained = []
    for k, c in enumerate(clients):
        w = dict(net)
        for _ in range(STEPS):
            w = {
                n: a - RATE * g
                for (n, a), g in zip(w.items(), step(k, c, w, net).values(), strict=True)
            }
        trained.append(w)
    return mean(trained, [len(c.labels) for c in clients])


def _fedlc(clients: list[Holder], net: Net) -> Net:
    def step(k: int, c: Holder, w: Net, _: Net) -> Net:
        held = np.bincount(c.labels, minlength=10)
        with np.errstate(divide="ignore"):
            margin = 0.7 * held.astype(float) ** -0.25
        odds = softmax(np.where(held, c.logits(w) - margin, -1e9))
        return c.gradient(w, (odds - np.eye(10)[c.labels]) / len(c.labels))

    for _ in range(ROUNDS):
        net = _all(clients, net, step)
    return net


def _fedntd(clients: list[Holder], net: Net) -> Net:
    beta, tau = 2.0, 1.5

    def step(k: int, c: Holder, w: Net, sent: Net) -> Net:
        true, n = np.eye(10)[c.labels], len(c.labels)
        hidden = np.where(true > 0, -1e9, 0.0)  # the true label takes no part
        mine, theirs = (softmax(c.logits(x) / tau + hidden) for x in (w, sent))
        # d KL(theirs || mine) / d logits = (mine - theirs) / tau
        wrong = softmax(c.logits(w)) - true + beta * tau**2 * (mine - theirs) / tau
        return c.gradient(w, wrong / n)

    for _ in range(ROUNDS):
        net = _all(clients, net, step)
    return net


def _moon(clients: list[Holder], net: Net) -> Net:
    mu, tau = 2.0, 0.5
    last = [dict(net) for _ in clients]

    def cosine(z: Floats, a: Floats) -> tuple[Floats, Floats]:
        """Return cosines, shape (n, 1), and their gradients by ``z``."""
        norms = [np.linalg.norm(x, axis=1, keepdims=True) for x in (z, a)]
        lengths = [np.maximum(norm, 1e-8) for norm in norms]  # of features that are all 0, too
        value = (z * a).sum(axis=1, keepdims=True) / (lengths[0] * lengths[1])
        return value, a / (lengths[0] * lengths[1]) - value * z / lengths[0] ** 2

    def step(k: int, c: Holder, w: Net, sent: Net) -> Net:
        z, n = c.features(w), len(c.labels)
        near, by_near = cosine(z, c.features(sent))
        far, by_far = cosine(z, c.features(last[k]))
        share = softmax(np.hstack([near, far]) / tau)
        on_features = ((share[:, :1] - 1) * by_near + share[:, 1:] * by_far) / tau
        return c.gradient(w, on_features=mu * on_features / n)

    for _ in range(ROUNDS):
        before = net
        net = _all(clients, net, step)
        fresh = []
        for k, c in enumerate(clients):
            w = dict(before)
            for _ in range(STEPS):
                slope = step(k, c, w, before)
                w = {n: a - RATE * slope[n] for n, a in w.items()}
            fresh.append(w)
        last = fresh
    return net


def _fedsam(clients: list[Holder], net: Net) -> Net:
    def step(k: int, c: Holder, w: Net, _: Net) -> Net:
        slope = c.gradient(w)
        norm = np.sqrt(sum(float((g**2).sum()) for g in slope.values()))
        return c.gradient({n: a + 0.5 * slope[n] / norm for n, a in w.items()})

    for _ in range(ROUNDS):
        net = _all(clients, net, step)
    return net


def _feddyn(clients: list[Holder], net: Net) -> Net:
    alpha, own = 0.1, [{n: np.zeros_like(a) for n, a in net.items()} for _ in clients]
    h = {n: np.zeros_like(a) for n, a in net.items()}
    for _ in range(ROUNDS):
        trained = []
        for k, c in enumerate(clients):
            w = dict(net)
            for _ in range(STEPS):
                g = c.gradient(w)
                w = {n: a - RATE * (g[n] - own[k][n] + alpha * (a - net[n])) for n, a in w.items()}
            own[k] = {n: own[k][n] - alpha * (w[n] - net[n]) for n in w}
            trained.append(w)
        moved = {n: sum(w[n] - a for w in trained) for n, a in net.items()}
        h = {n: a - alpha / len(clients) * moved[n] for n, a in h.items()}
        net = {n: sum(w[n] for w in trained) / len(clients) - h[n] / alpha for n in net}
    return net


def _fedcm(clients: list[Holder], net: Net) -> Net:
    alpha, direction = 0.3, {n: np.zeros_like(a) for n, a in net.items()}
    for _ in range(ROUNDS):

        def step(k: int, c: Holder, w: Net, _: Net, direction: Net = direction) -> Net:
            slope = c.gradient(w)
            return {n: alpha * slope[n] + (1 - alpha) * direction[n] for n in w}

        moved = _all(clients, net, step)
        direction = {n: (a - moved[n]) / (RATE * STEPS) for n, a in net.items()}
        net = moved
    return net


def _fedexp(clients: list[Holder], net: Net) -> Net:
    counts = np.array([len(c.labels) for c in clients])
    for _ in range(ROUNDS):
        trained = [c.sgd(net, RATE, STEPS) for c in clients]
        together = mean(trained, counts.tolist())

        def square(w: Net, net: Net = net) -> float:
            return float(sum(((w[n] - a) ** 2).sum() for n, a in net.items()))

        apart = sum(p * square(w) for p, w in zip(counts / counts.sum(), trained, strict=True))
        step = max(1.0, apart / (2 * (square(together) + 1e-4)))
        assert step > 1
        net = {n: a + step * (together[n] - a) for n, a in net.items()}
    return net


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "algorithm"),
    [
        (FedLc(tau=0.7), _fedlc),
        (FedNtd(beta=2.0, tau=1.5), _fedntd),
        (Moon(mu=2.0, tau=0.5), _moon),
        (FedSam(rho=0.5), _fedsam),
        (FedDyn(alpha=0.1), _feddyn),
        (FedCm(alpha=0.3), _fedcm),
        (FedExp(epsilon=1e-4), _fedexp),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_rounds_are_the_papers_algorithm(strategy: Strategy, algorithm: Any) -> None:
    experiment = _plain(strategy)
    start = {n: a.astype(np.float64) for n, a in initial_weights(experiment).items()}
    clients = holders(experiment)
    found, wanted = _final(experiment), algorithm(clients, start)
    plain = start
    for _ in range(ROUNDS):
        trained = [c.sgd(plain, RATE, STEPS) for c in clients]
        plain = mean(trained, [len(c.labels) for c in clients])
    for name, array in found.items():
        np.testing.assert_allclose(array, wanted[name], atol=3e-5, err_msg=name)
    assert max(np.abs(wanted[n] - plain[n]).max() for n in plain) > 1e-3  # FedAvg's are others


@pytest.mark.parametrize("name", ["moon", "fedlc", "fedntd", "fedrod"])
def test_a_loss_about_labels_needs_labels(name: str) -> None:
    with pytest.raises(ConfigError, match=f"strategy={name} has a loss about labels"):
        compose_config([f"strategy={name}", "dataset=toy_regression", "partition=iid"])
