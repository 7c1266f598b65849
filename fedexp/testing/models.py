"""The contract of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fedexp.config.backend import InlineBackend
from fedexp.config.schema import Config
from fedexp.config.training import TrainingConfig
from fedexp.core.roles import Order
from fedexp.core.weights import hash_weights
from fedexp.data.assignment import Assignment
from fedexp.data.examples import Examples, Spec
from fedexp.data.federated import FederatedData
from fedexp.data.loading import load
from fedexp.datasets import Dataset
from fedexp.models import Model
from fedexp.testing.runs import require, resumes_alike, same_everywhere, small
from fedexp.testing.tiny import tiny_for


def model_conforms(model: Model, backends: Sequence[str]) -> None:
    """For every task: what :func:`check_model` says, the same bits everywhere and when resumed."""
    for dataset in tiny_for(model):
        config = small(model=model, dataset=dataset)
        # Deep networks diverge at the usual rate where targets are numbers.
        gentle = replace(config.training, learning_rate=1e-3)
        config = replace(config, training=_allowed(model, gentle))
        check_model(model, dataset, config)
        same_everywhere(config, backends)
        resumes_alike(config)


def check_model(model: Model, dataset: Dataset, config: Config) -> None:
    """The contract of a model: built alike, filled, predicting and training as it must."""
    from fedexp.federation.client import ClientNode
    from fedexp.training.building import build_trainer
    from fedexp.training.torch_trainer import TorchTrainer

    spec, training = dataset.spec, TrainingConfig(local_steps=3, batch_size=2, learning_rate=1e-3)
    alone = replace(
        config,
        model=model,
        dataset=dataset,
        training=_allowed(model, training),
        backend=InlineBackend(device="cpu"),
    )
    require(bool(model.framework), "framework must say what it is written in, such as MLX")
    trainers = [build_trainer(alone, spec) for _ in range(2)]
    trainer, (initial, again) = trainers[0], [one.initial() for one in trainers]
    require(
        hash_weights(initial) == hash_weights(again),
        "build() gives other weights for the same seed: draw them from torch's generator alone"
        if isinstance(trainer, TorchTrainer)
        else "initial() gives other weights for the same seed: draw them from it alone",
    )
    require(
        bool(trainer.parameters),
        "no parameter requires gradients, so that there is nothing to train",
    )
    for name, array in initial.items():
        finite = not np.issubdtype(array.dtype, np.floating) or np.isfinite(array).all()
        require(bool(finite), f"the initial {name} holds NaN or infinity")
    moved = {
        n: (a * 2).astype(a.dtype) if np.issubdtype(a.dtype, np.floating) else a
        for n, a in initial.items()
    }
    if isinstance(trainer, TorchTrainer):
        network = trainer.network
        network.load(moved)
        inner = {name: p.detach().numpy() for name, p in network.module.named_parameters()}
        require(
            all(np.array_equal(inner[name], moved[name]) for name in inner if name in moved),
            "the state dict is not the module's own memory: what is written to it gets lost",
        )
    train, test = load(dataset)
    everything = Assignment.of([np.arange(len(train))])
    examples = dataset.fitted(train, test, everything).train.subset(np.arange(4))
    outputs = trainer.outputs(initial, examples.inputs[:2])
    wanted = alone.task.output_shape(2, spec.shape, spec.outputs)
    require(
        outputs.shape == wanted,
        f"outputs must have shape {wanted} for two inputs, got {outputs.shape}",
    )
    require(bool(np.isfinite(outputs).all()), "outputs of the initial model are not finite")
    node = ClientNode(alone, lambda: _no_clients(spec, examples))
    _check_training(node, initial, examples)


def _allowed(model: Model, training: TrainingConfig) -> TrainingConfig:
    """Give the options of training that a framework restricts the first of the values it allows."""
    told = {option.rpartition("."): values[0] for option, values in model.allows.items()}
    own = {name: value for (room, _, name), value in told.items() if room == "training"}
    return replace(training, **own)


def _no_clients(spec: Spec, examples: Examples) -> FederatedData:
    everything = Assignment.of([np.arange(len(examples))])
    return FederatedData(spec, examples, examples, everything, everything)


def _check_training(node: Any, initial: Any, examples: Any) -> None:
    """Three steps of two examples each, twice, with another client's work in between."""
    from fedexp.federation.job import ClientJob

    def trained(client: int) -> Any:
        job = ClientJob(node, client, 1, Order(initial), {}, examples, 3)
        with node.trainer.turn(1, client):
            return job.train()

    first, _, again = trained(0), trained(1), trained(0)
    require(
        hash_weights(first) == hash_weights(again),
        "a client's training depends on which clients trained before in the same process",
    )
    require(
        any(not np.array_equal(first[name], initial[name]) for name in node.trainer.parameters),
        "three steps of SGD change no parameter",
    )
