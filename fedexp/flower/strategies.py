"""Strategies by name: Flower's own, built from the configuration, and the ones that Flower lacks.

A new strategy is a class (or one of Flower's), a dataclass in ``strategies.options``, and a line
in :data:`STRATEGIES`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

import flwr.app
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid, strategy
from flwr.serverapp.strategy import FedAvg, Strategy

from fedexp.config.clients import TrainingConfig
from fedexp.config.schema import Config
from fedexp.flower.protocol import ARRAYS, GLOBAL_LOSS
from fedexp.strategies.buffers import BuffersApart
from fedexp.strategies.centralized import Centralized
from fedexp.strategies.fednova import FedNova
from fedexp.strategies.krum import MultiKrum, select_one_by_one
from fedexp.strategies.local_only import LocalOnly
from fedexp.strategies.options import (
    BulyanStrategy,
    CentralizedStrategy,
    FedAdagradStrategy,
    FedAdamStrategy,
    FedAvgMStrategy,
    FedAvgStrategy,
    FedMedianStrategy,
    FedNovaStrategy,
    FedProxStrategy,
    FedTrimmedAvgStrategy,
    FedYogiStrategy,
    KrumStrategy,
    LocalOnlyStrategy,
    MultiKrumStrategy,
    QFedAvgStrategy,
    ScaffoldStrategy,
    StrategyConfig,
)
from fedexp.strategies.scaffold import Scaffold

# The round loop draws the cohort and shows the strategy nothing else, so the strategy takes all it
# sees. Flower's default minimum of 2 would wait for ever where one client is all there is.
_WHOLE_COHORT: dict[str, Any] = {
    "fraction_train": 1.0,
    "fraction_evaluate": 1.0,
    "min_train_nodes": 1,
    "min_evaluate_nodes": 1,
    "min_available_nodes": 1,
}


def build_strategy(config: Config, buffers: Collection[str] = ()) -> Strategy:
    """Build the strategy that a configuration names.

    Args:
        config: The experiment.
        buffers: Names of the model's entries that are no parameters.
    """
    built = STRATEGIES[type(config.strategy)](config.strategy, config)
    if buffers and isinstance(built, _SERVER_OPTIMIZERS):
        return BuffersApart(built, buffers)
    return built


class QFedAvg(strategy.QFedAvg):
    """Flower's QFedAvg, told the loss it needs.

    Flower takes whatever loss clients report; the paper (Li et al., arXiv 1905.10497) wants that of the
    incoming model on all of a client's data. Its ``1 / L`` follows the learning rate of the round.
    """

    def __init__(self, q: float, fixed_rate: float | None, training: TrainingConfig) -> None:
        super().__init__(1.0, q, train_loss_key=GLOBAL_LOSS, **_WHOLE_COHORT)
        self._fixed_rate, self._training = fixed_rate, training

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask clients for the incoming model's loss."""
        self.client_learning_rate = self._fixed_rate or self._training.rate(server_round)
        config[GLOBAL_LOSS] = True
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Hand over copies, because Flower computes in the replies' own arrays."""
        replies = list(replies)
        for reply in replies:
            record = reply.content.array_records[ARRAYS]
            reply.content[ARRAYS] = ArrayRecord(
                {name: flwr.app.Array(array.numpy()) for name, array in record.items()}
            )
        return super().aggregate_train(server_round, replies)


_SERVER_OPTIMIZERS = (
    strategy.FedAvgM,
    strategy.FedAdagrad,
    strategy.FedAdam,
    strategy.FedYogi,
    QFedAvg,
    Scaffold,
    FedNova,
)


def _fedadam(kind: Callable[..., Strategy]) -> Callable[[FedAdamStrategy, Config], Strategy]:
    return lambda s, _: kind(
        eta=s.eta, beta_1=s.beta_1, beta_2=s.beta_2, tau=s.tau, **_WHOLE_COHORT
    )


STRATEGIES: dict[type[StrategyConfig], Callable[[Any, Config], Strategy]] = {
    FedAvgStrategy: lambda s, _: FedAvg(**_WHOLE_COHORT),
    FedProxStrategy: lambda s, _: strategy.FedProx(proximal_mu=s.proximal_mu, **_WHOLE_COHORT),
    FedAvgMStrategy: lambda s, _: strategy.FedAvgM(
        server_learning_rate=s.server_learning_rate,
        server_momentum=s.server_momentum,
        **_WHOLE_COHORT,
    ),
    FedAdagradStrategy: lambda s, _: strategy.FedAdagrad(eta=s.eta, tau=s.tau, **_WHOLE_COHORT),
    FedAdamStrategy: _fedadam(strategy.FedAdam),
    FedYogiStrategy: _fedadam(strategy.FedYogi),
    QFedAvgStrategy: lambda s, config: QFedAvg(s.q, s.client_learning_rate, config.training),
    FedMedianStrategy: lambda s, _: strategy.FedMedian(**_WHOLE_COHORT),
    FedTrimmedAvgStrategy: lambda s, _: strategy.FedTrimmedAvg(beta=s.beta, **_WHOLE_COHORT),
    KrumStrategy: lambda s, _: MultiKrum(
        num_malicious_nodes=s.num_malicious, num_nodes_to_select=1, **_WHOLE_COHORT
    ),
    MultiKrumStrategy: lambda s, _: MultiKrum(
        num_malicious_nodes=s.num_malicious, num_nodes_to_select=s.num_selected, **_WHOLE_COHORT
    ),
    BulyanStrategy: lambda s, _: strategy.Bulyan(
        num_malicious_nodes=s.num_malicious, selection_rule=select_one_by_one, **_WHOLE_COHORT
    ),
    ScaffoldStrategy: lambda s, config: Scaffold(
        config.clients.num, s.server_learning_rate, **_WHOLE_COHORT
    ),
    FedNovaStrategy: lambda s, _: FedNova(**_WHOLE_COHORT),
    LocalOnlyStrategy: lambda s, _: LocalOnly(),
    CentralizedStrategy: lambda s, _: Centralized(**_WHOLE_COHORT),
}
