"""The server's side of a run's strategy."""

from __future__ import annotations

from fedexp.config.schema import Config
from fedexp.core.buffers import BuffersApart
from fedexp.core.options import FedexpError
from fedexp.core.roles import Server, Setup
from fedexp.federation.evaluation import BuiltModel


def build_server(config: Config, evaluation: BuiltModel) -> Server:
    """Return the server's side of the strategy, kept away from buffers where it must be.

    Raises:
        FedexpError: If it reads features, and the model has none.
    """
    buffers = evaluation.buffers
    rate, num = config.training.rate, config.clients.num
    width = _width(config, evaluation) if config.strategy.reads_features else 0
    classes = config.dataset.spec.num_classes
    setup = Setup(num, evaluation.parameters, buffers, rate, config.seed, classes, width)
    server = config.strategy.server(setup)
    apart = buffers and config.strategy.averages_buffers
    return BuffersApart(server, buffers) if apart else server


def _width(config: Config, evaluation: BuiltModel) -> int:
    """Return how many numbers the last layer takes of an example."""
    layers, width = evaluation.layers, evaluation.width()
    named = f"strategy={config.strategy.name} compares what the last layer takes"
    if not layers.trained(layers.others(layers.head)):
        raise FedexpError(
            f"{named}, and model={config.model.name} has no other layer that is trained: choose a model "
            "of more layers"
        )
    if width is None:
        raise FedexpError(
            f"{named}, which in model={config.model.name} is not one vector an example: choose another "
            "model"
        )
    return width
