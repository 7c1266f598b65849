"""Every strategy on every backend gives the same bits; the client's side of those that have one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import ray
from support.helpers import summary

from fedexp import strategies
from fedexp.backends import ray_session
from fedexp.config.composition import compose_config

RunOf = Callable[..., Path]
# FedBN needs a model that normalises, which trains for minutes; conforms() tries it on every backend.
NAMES = [name for name in strategies.choices() if name != "fedbn"]
SMALL = (
    "partition=dirichlet",
    "partition.alpha=1",
    "clients.num=9",
    "rounds=2",
    "training.local_epochs=1",
    "training.batch_size=100",
    "model.hidden=[]",
)
LAYERS = "model.hidden=[8]"
"""A head and a body: some strategies leave one of them with the clients."""


def _hash(run: Path) -> str:
    found = summary(run)
    assert found["status"] == "completed"
    return str(found["model_sha256"])


@pytest.mark.slow  # every strategy on Ray: 25 s
@pytest.mark.parametrize("name", NAMES)
def test_two_workers_change_no_bit(name: str, run_of: RunOf, two_workers: None) -> None:
    one = run_of(f"strategy={name}", "backend=inline", *SMALL, LAYERS)
    two = run_of(f"strategy={name}", "backend=ray", "backend.workers=2", *SMALL, LAYERS)
    assert _hash(one) == _hash(two)
    assert (one / "metrics.csv").read_bytes() == (two / "metrics.csv").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_flowers_runtime_changes_no_bit(
    name: str, run_of: RunOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = run_of(f"strategy={name}", "backend=inline", *SMALL, LAYERS)
    ray_session.start_ray(compose_config(["backend=flower", "backend.workers=2", *SMALL, LAYERS]))
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    other = run_of(f"strategy={name}", "backend=flower", "backend.workers=2", *SMALL, LAYERS)
    assert _hash(one) == _hash(other)


TROUBLED = (
    *SMALL,
    *("rounds=3", "training.local_epochs=2", "clients.num=12", "clients.fraction_train=0.8"),
    *("clients.dropout=0.1", "clients.stragglers=0.5", "clients.fraction_evaluate=0.5"),
    *("clients.byzantine.fraction=0.2", "clients.byzantine.kind=gaussian"),
    *("training.learning_rate_decay=0.8", "training.max_grad_norm=1"),
)
NO_WEIGHTS = ("fedproto",)
"""Strategies whose clients send no weights, which gaussian noise could change."""


def _same_troubles(one: Path, other: Path) -> None:
    assert _hash(one) == _hash(other)
    for name in ("metrics.csv", "failures.csv"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


@pytest.mark.slow  # whole runs: 4 to 10 s
def test_clients_fail_alike_with_two_workers(run_of: RunOf, two_workers: None) -> None:
    words = ("strategy=scaffold", *TROUBLED)  # the strategy whose clients keep a state
    one = run_of("backend=inline", *words)
    _same_troubles(one, run_of("backend=ray", "backend.workers=2", *words))
    failures = (one / "failures.csv").read_text()
    assert "DroppedOutError: clients.dropout=0.1" in failures
    assert failures.count("gaussian") == 2 == len(summary(one)["byzantine"])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("backend", "workers"), [("ray", 1), ("ray", 2), ("flower", 2)])
def test_clients_fail_alike_on_every_backend(
    backend: str, workers: int, name: str, run_of: RunOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = ("clients.byzantine.kind=label_flip",) if name in NO_WEIGHTS else ()
    words = (f"backend={backend}", f"backend.workers={workers}", *TROUBLED, LAYERS, *fault)
    ray_session.start_ray(compose_config(list(words)))
    if backend == "flower":  # its runtime would end the session
        monkeypatch.setattr(ray, "shutdown", lambda: None)
    one = run_of(f"strategy={name}", "backend=inline", *TROUBLED, LAYERS, *fault)
    _same_troubles(one, run_of(f"strategy={name}", *words))


@pytest.mark.slow  # whole runs: 4 to 10 s
def test_fedprox_with_mu_0_is_fedavg(run_of: RunOf) -> None:
    plain = run_of("strategy=fedavg", "backend=inline", *SMALL)
    pulled = run_of("strategy=fedprox", "strategy.proximal_mu=0", "backend=inline", *SMALL)
    held = run_of("strategy=fedprox", "strategy.proximal_mu=5", "backend=inline", *SMALL)
    assert _hash(plain) == _hash(pulled) != _hash(held)


@pytest.mark.slow  # whole runs: 4 to 10 s
def test_scaffolds_first_round_is_fedavgs_and_its_second_is_not(run_of: RunOf) -> None:
    def hashes(name: str) -> list[str]:
        words = (f"strategy={name}", "backend=inline", *SMALL)  # two rounds
        return [_hash(run_of(*words, "rounds=1")), _hash(run_of(*words))]

    (first, second), (same, other) = hashes("fedavg"), hashes("scaffold")
    assert first == same
    assert second != other


@pytest.mark.slow
def test_centralized_trains_on_what_the_clients_hold(run_of: RunOf) -> None:
    one = run_of("strategy=centralized", "backend=inline", *SMALL)
    other = run_of("strategy=fedavg", "backend=inline", *SMALL)
    union, federated = summary(one), summary(other)
    assert union["partition_sha256"] == federated["partition_sha256"]
    assert union["final"]["all"]["accuracy"] > federated["final"]["all"]["accuracy"]


@pytest.mark.slow  # trains for 10 s
def test_qfedavg_serves_the_clients_that_are_served_worst(run_of: RunOf) -> None:
    # Label skew of ten clients: with q the worst-served tenth gains and the clients come closer together.
    skewed = (
        *("strategy=qfedavg", "strategy.client_learning_rate=0.5", "backend=inline"),
        *("partition=dirichlet", "partition.alpha=0.1", "partition.seed=7", "clients.num=10"),
        *("model=logistic", "rounds=20", "training.local_steps=10"),
        *("training.learning_rate=0.05", "training.momentum=0"),
    )
    worst: dict[str, list[float]] = {"0": [], "0.5": []}
    spread: dict[str, list[float]] = {"0": [], "0.5": []}
    for q in worst:
        for seed in (0, 1, 2):
            served = summary(run_of(*skewed, f"strategy.q={q}", f"seed={seed}"))["fairness"]
            worst[q].append(served["worst10"])
            spread[q].append(served["std"])
    assert sum(worst["0.5"]) > sum(worst["0"]) + 3 * 0.05
    assert sum(spread["0.5"]) < sum(spread["0"]) - 3 * 0.01
