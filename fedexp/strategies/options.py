"""Strategies: how the server can combine what the clients send."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from fedexp.core.options import ranged


@dataclass(frozen=True)
class StrategyConfig:
    """How the server combines what the clients send.

    Attributes:
        formula: How :attr:`min_clients` comes about, for errors.
        counts_steps: Whether it relates an update to the SGD steps behind it, which Adam defies.
        spoils_buffers: Whether it would misjudge BatchNorm's buffers, which are not weights.
    """

    formula: ClassVar[str] = "1"
    counts_steps: ClassVar[bool] = False
    spoils_buffers: ClassVar[bool] = False

    name: str = "fedavg"

    @property
    def min_clients(self) -> int:
        """Clients that a round needs for the strategy to be what its paper says."""
        return 1


@dataclass(frozen=True)
class FedAvgStrategy(StrategyConfig):
    """Federated averaging, weighted by examples."""


@dataclass(frozen=True)
class LocalOnlyStrategy(StrategyConfig):
    """No federation: every client trains alone from the same initial weights."""

    name: str = "local_only"


@dataclass(frozen=True)
class CentralizedStrategy(StrategyConfig):
    """No federation: the images of a round's clients train one model, as if they were one client's."""

    name: str = "centralized"


@dataclass(frozen=True)
class FedProxStrategy(StrategyConfig):
    """FedAvg whose clients are held near the global model by ``proximal_mu / 2 * ||w - w_t||^2``."""

    name: str = "fedprox"
    proximal_mu: float = ranged(0.1, ge=0)


@dataclass(frozen=True)
class FedAvgMStrategy(StrategyConfig):
    """FedAvg with momentum on the server."""

    name: str = "fedavgm"
    server_learning_rate: float = ranged(1.0, gt=0)
    server_momentum: float = ranged(0.9, ge=0, lt=1)


@dataclass(frozen=True)
class FedAdagradStrategy(StrategyConfig):
    """Adagrad on the server; ``eta`` is its learning rate, ``tau`` its degree of adaptivity."""

    name: str = "fedadagrad"
    eta: float = ranged(0.03, gt=0)
    tau: float = ranged(0.001, gt=0)


@dataclass(frozen=True)
class FedAdamStrategy(StrategyConfig):
    """Adam on the server; ``eta`` is its learning rate, ``tau`` its degree of adaptivity."""

    name: str = "fedadam"
    eta: float = ranged(0.01, gt=0)
    beta_1: float = ranged(0.9, ge=0, lt=1)
    beta_2: float = ranged(0.99, ge=0, lt=1)
    tau: float = ranged(0.001, gt=0)


@dataclass(frozen=True)
class FedYogiStrategy(FedAdamStrategy):
    """Yogi on the server; options as FedAdam's."""

    name: str = "fedyogi"


@dataclass(frozen=True)
class QFedAvgStrategy(StrategyConfig):
    """Fairer federation: clients with a high loss count for more, the more so the larger ``q``.

    ``client_learning_rate: null`` follows the rate that clients train with.
    """

    name: str = "qfedavg"
    q: float = ranged(0.1, ge=0)
    client_learning_rate: float | None = ranged(None, gt=0)


@dataclass(frozen=True)
class FedMedianStrategy(StrategyConfig):
    """The median of every coordinate, unweighted."""

    formula: ClassVar[str] = "3 (the median of two is their mean)"

    name: str = "fedmedian"

    @property
    def min_clients(self) -> int:
        """Three: the median of fewer is their mean, which withstands nothing."""
        return 3


@dataclass(frozen=True)
class FedTrimmedAvgStrategy(StrategyConfig):
    """The mean of every coordinate less its ``int(beta * n)`` lowest and highest values."""

    formula: ClassVar[str] = "1 / strategy.beta (with fewer, nothing is trimmed)"

    name: str = "fedtrimmedavg"
    beta: float = ranged(0.2, ge=0, lt=0.5)

    @property
    def min_clients(self) -> int:
        """The fewest of which at least one is trimmed at either end."""
        if self.beta == 0:
            return 1
        fewest = math.floor(1 / self.beta)
        return fewest if int(self.beta * fewest) >= 1 else fewest + 1


@dataclass(frozen=True)
class KrumStrategy(StrategyConfig):
    """The one update that lies nearest to its neighbours; withstands ``num_malicious`` clients."""

    formula: ClassVar[str] = "2 * strategy.num_malicious + 3"
    spoils_buffers: ClassVar[bool] = True

    name: str = "krum"
    num_malicious: int = ranged(1, ge=0)

    @property
    def min_clients(self) -> int:
        """Krum's condition n > 2 f + 2."""
        return 2 * self.num_malicious + 3


@dataclass(frozen=True)
class MultiKrumStrategy(KrumStrategy):
    """The mean of the ``num_selected`` updates that Krum likes best."""

    formula: ClassVar[str] = (
        "max(2 * strategy.num_malicious + 3, strategy.num_malicious + 2 + strategy.num_selected)"
    )

    name: str = "multikrum"
    num_selected: int = ranged(3, ge=1)

    @property
    def min_clients(self) -> int:
        """Krum's condition, and num_selected <= n - f - 2."""
        return max(super().min_clients, self.num_malicious + 2 + self.num_selected)


@dataclass(frozen=True)
class BulyanStrategy(KrumStrategy):
    """Krum's choice, coordinate by coordinate narrowed to what lies nearest to the median."""

    formula: ClassVar[str] = "4 * strategy.num_malicious + 3"

    name: str = "bulyan"

    @property
    def min_clients(self) -> int:
        """Bulyan's condition n >= 4 f + 3."""
        return 4 * self.num_malicious + 3


@dataclass(frozen=True)
class ScaffoldStrategy(StrategyConfig):
    """FedAvg whose clients correct their drift by control variates."""

    counts_steps: ClassVar[bool] = True

    name: str = "scaffold"
    server_learning_rate: float = ranged(1.0, gt=0)


@dataclass(frozen=True)
class FedNovaStrategy(StrategyConfig):
    """FedAvg of updates that are first divided by the steps behind them."""

    counts_steps: ClassVar[bool] = True

    name: str = "fednova"
