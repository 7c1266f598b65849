"""Strategies by name: Flower's own, built from the configuration, and the ones that Flower lacks.

A new strategy is a class (or one of Flower's), a dataclass in :mod:`fedexp.config`, and a line in
:data:`STRATEGIES`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flwr.serverapp.strategy import FedAvg, Strategy

from fedexp.config_strategy import FedAvgStrategy, LocalOnlyStrategy, StrategyConfig
from fedexp.local_only import LocalOnly

# The round loop draws the cohort and shows the strategy nothing else, so the strategy takes all it
# sees. Flower's default minimum of 2 would wait for ever where one client is all there is.
_WHOLE_COHORT: dict[str, Any] = {
    "fraction_train": 1.0,
    "fraction_evaluate": 1.0,
    "min_train_nodes": 1,
    "min_evaluate_nodes": 1,
    "min_available_nodes": 1,
}


def build_strategy(config: StrategyConfig) -> Strategy:
    """Build the strategy that a configuration names."""
    return STRATEGIES[type(config)](config)


STRATEGIES: dict[type[StrategyConfig], Callable[[Any], Strategy]] = {
    FedAvgStrategy: lambda _: FedAvg(**_WHOLE_COHORT),
    LocalOnlyStrategy: lambda _: LocalOnly(),
}
