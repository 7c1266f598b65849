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
        check_model(model, dataset, config)
        same_everywhere(config, backends)
        resumes_alike(config)


def check_model(model: Model, dataset: Dataset, config: Config) -> None:
    """The contract of a model: built alike, filled, predicting and training as it must."""
    import torch

    from fedexp.federation.client import ClientNode
    from fedexp.training.network import build_network

    cpu, spec = torch.device("cpu"), dataset.spec
    networks = [build_network(model, spec, 0, cpu, dataset.prepare) for _ in range(2)]
    network, (initial, again) = networks[0], [n.weights() for n in networks]
    require(
        hash_weights(initial) == hash_weights(again),
        "build() gives other weights for the same seed: draw them from torch's generator alone",
    )
    require(
        bool(network.parameters),
        "no parameter requires gradients, so that there is nothing to train",
    )
    for name, array in initial.items():
        finite = not np.issubdtype(array.dtype, np.floating) or np.isfinite(array).all()
        require(bool(finite), f"the initial {name} holds NaN or infinity")
    moved = {
        n: (a * 2).astype(a.dtype) if np.issubdtype(a.dtype, np.floating) else a
        for n, a in initial.items()
    }
    network.load(moved)
    inner = {name: p.detach().numpy() for name, p in network.module.named_parameters()}
    require(
        all(np.array_equal(inner[name], moved[name]) for name in inner),
        "the state dict is not the module's own memory: what is written to it gets lost",
    )
    network.load(initial)
    train, test = load(dataset)
    everything = Assignment.of([np.arange(len(train))])
    examples = dataset.fitted(train, test, everything).train.subset(np.arange(4))
    network.module.eval()
    with torch.no_grad():
        logits = network.module(dataset.prepare(torch.from_numpy(examples.inputs[:2])))
    wanted = config.task.output_shape(2, spec.shape, spec.outputs)
    require(
        tuple(logits.shape) == wanted,
        f"outputs must have shape {wanted} for two inputs, got {tuple(logits.shape)}",
    )
    require(bool(torch.isfinite(logits).all()), "outputs of the initial model are not finite")
    training = TrainingConfig(local_steps=3, batch_size=2, learning_rate=1e-3)
    node = ClientNode(
        replace(config, model=model, dataset=dataset, training=training, backend=InlineBackend()),
        lambda: _no_clients(spec, examples),
    )
    _check_training(node, initial, examples)


def _no_clients(spec: Spec, examples: Examples) -> FederatedData:
    everything = Assignment.of([np.arange(len(examples))])
    return FederatedData(spec, examples, examples, everything, everything)


def _check_training(node: Any, initial: Any, examples: Any) -> None:
    """Three steps of two examples each, twice, with another client's work in between."""
    from fedexp.federation.client import ClientJob
    from fedexp.training.network import keyed_chance

    def trained(client: int) -> Any:
        job = ClientJob(node, client, 1, Order(initial), {}, examples, 3)
        with keyed_chance(0, 1, client, node.device):
            return job.train()

    first, _, again = trained(0), trained(1), trained(0)
    require(
        hash_weights(first) == hash_weights(again),
        "a client's training depends on which clients trained before in the same process",
    )
    require(
        any(not np.array_equal(first[name], initial[name]) for name in node.network.parameters),
        "three steps of SGD change no parameter",
    )
