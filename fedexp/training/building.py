"""Which trainer a model has."""

from __future__ import annotations

from fedexp.config.schema import Config
from fedexp.data.examples import Spec
from fedexp.training.array_trainer import ArrayTrainer
from fedexp.training.torch_trainer import TorchTrainer
from fedexp.training.trainer import Trainer


def build_trainer(config: Config, spec: Spec) -> Trainer:
    """Build an experiment's model, and what trains it; once in a process.

    Args:
        config: The experiment.
        spec: Shape of an input, and how many numbers a prediction has.
    """
    learner = config.model.learner(spec, config.task.name)
    return TorchTrainer(config, spec) if learner is None else ArrayTrainer(config, learner)
