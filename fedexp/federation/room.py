"""Is there room for what a run's server has to hold? Asked before clients are started."""

from __future__ import annotations

from fedexp.config.schema import Config
from fedexp.core.machine import usable_memory
from fedexp.core.options import FedexpError
from fedexp.core.roles import Server
from fedexp.core.weights import Weights


def ensure_room(config: Config, server: Server, model: Weights) -> None:
    """Refuse a run whose strategy would need more memory than there is.

    Raises:
        FedexpError: With what it needs, what there is, and the remedy.
    """
    needed, there = server.memory(config.clients.cohort, model), usable_memory()
    if there is not None and needed > there:
        raise FedexpError(
            f"strategy={config.strategy.name} needs {needed / 1e9:.3g} GB of memory for the updates of "
            f"{config.clients.cohort} clients, {there / 1e9:.3g} GB are there: sample fewer clients "
            "(clients.fraction_train), or choose a smaller model or another strategy"
        )
