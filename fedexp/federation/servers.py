"""The server's side of a run's strategy."""

from __future__ import annotations

from fedexp.config.schema import Config
from fedexp.core.buffers import BuffersApart
from fedexp.core.roles import Server, Setup
from fedexp.federation.evaluation import BuiltModel


def build_server(config: Config, evaluation: BuiltModel) -> Server:
    """Return the server's side of the strategy, kept away from buffers where it must be."""
    buffers = evaluation.buffers
    rate, num = config.training.rate, config.clients.num
    setup = Setup(num, evaluation.parameters, buffers, rate, config.seed)
    server = config.strategy.server(setup)
    apart = buffers and config.strategy.averages_buffers
    return BuffersApart(server, buffers) if apart else server
