"""Strategies, clients and local training: what can be chosen."""

from __future__ import annotations

from dataclasses import dataclass

from fedexp.options import one_of, ranged


@dataclass(frozen=True)
class StrategyConfig:
    """How the server combines what the clients send."""

    name: str = "fedavg"


@dataclass(frozen=True)
class FedAvgStrategy(StrategyConfig):
    """Federated averaging, weighted by examples."""


@dataclass(frozen=True)
class LocalOnlyStrategy(StrategyConfig):
    """No federation: every client trains alone from the same initial weights."""

    name: str = "local_only"


@dataclass(frozen=True)
class ClientsConfig:
    """How many clients there are, and which share takes part in a round (at least one client)."""

    num: int = ranged(3, ge=1)
    fraction_train: float = ranged(1.0, gt=0, le=1)
    fraction_evaluate: float = ranged(0.0, ge=0, le=1)


@dataclass(frozen=True)
class TrainingConfig:
    """What a client does between two messages of the server."""

    local_epochs: int = ranged(10, ge=1)
    batch_size: int = ranged(64, ge=1)
    optimizer: str = one_of("sgd", "sgd")
    learning_rate: float = ranged(0.01, gt=0)
    momentum: float = ranged(0.9, ge=0, lt=1)
    weight_decay: float = ranged(0.0, ge=0)
