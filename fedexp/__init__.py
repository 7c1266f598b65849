"""fedexp: federated-learning experiments on Flower, PyTorch and Ray.

The public face, for scripts and notebooks; importing it loads neither torch, ray nor flwr:

    from fedexp import Client, Server, Strategy, main, strategies
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

# Read once, when flwr and ray are imported; whoever wants their telemetry can still switch it on.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# With a task that needs no GPU, Ray leaves CUDA_VISIBLE_DEVICES alone: what it will do by default.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

__version__ = "0.1.0"

if TYPE_CHECKING:
    from fedexp import attacks, datasets, metrics, models, partitions, strategies
    from fedexp.__main__ import main
    from fedexp.api import compare, load, run
    from fedexp.attacks import Attack
    from fedexp.core.options import ConfigError, FedexpError, Span, one_of, ranged
    from fedexp.core.weights import Weights
    from fedexp.data.examples import Examples, Spec
    from fedexp.datasets import Dataset, ImageDataset, PopulationDataset
    from fedexp.frameworks.base import Batch, Learner, Recipe
    from fedexp.metrics import Metric, Predictions
    from fedexp.models import FrameworkModel, Model
    from fedexp.partitions import Partition
    from fedexp.strategies import (
        Carries,
        Client,
        Job,
        Order,
        Server,
        Setup,
        Strategy,
        Update,
        Updates,
    )

__all__ = [
    "Attack",
    "Batch",
    "Carries",
    "Client",
    "ConfigError",
    "Dataset",
    "Examples",
    "FedexpError",
    "FrameworkModel",
    "ImageDataset",
    "Job",
    "Learner",
    "Metric",
    "Model",
    "Order",
    "Partition",
    "PopulationDataset",
    "Predictions",
    "Recipe",
    "Server",
    "Setup",
    "Span",
    "Spec",
    "Strategy",
    "Update",
    "Updates",
    "Weights",
    "attacks",
    "compare",
    "datasets",
    "load",
    "main",
    "metrics",
    "models",
    "one_of",
    "partitions",
    "ranged",
    "run",
    "strategies",
]

_HOME = {
    "main": "__main__",
    **dict.fromkeys(("compare", "load", "run"), "api"),
    "Attack": "attacks",
    **dict.fromkeys(("ConfigError", "FedexpError", "Span", "one_of", "ranged"), "core.options"),
    "Weights": "core.weights",
    **dict.fromkeys(("Examples", "Spec"), "data.examples"),
    **dict.fromkeys(("Dataset", "ImageDataset", "PopulationDataset"), "datasets"),
    **dict.fromkeys(("Metric", "Predictions"), "metrics"),
    **dict.fromkeys(("FrameworkModel", "Model"), "models"),
    **dict.fromkeys(("Batch", "Learner", "Recipe"), "frameworks.base"),
    "Partition": "partitions",
    **dict.fromkeys(
        ("Carries", "Client", "Job", "Order", "Server", "Setup", "Strategy", "Update", "Updates"),
        "strategies",
    ),
}
_ROOMS = ("attacks", "datasets", "metrics", "models", "partitions", "strategies")


def __getattr__(name: str) -> Any:
    """Import a part of the public face when it is asked for."""
    if name in _ROOMS:
        return import_module(f"fedexp.{name}")
    if name in _HOME:
        return getattr(import_module(f"fedexp.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
