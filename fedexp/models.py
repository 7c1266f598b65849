"""Networks by name, and their weights as plain NumPy arrays.

A new network is a function here, a dataclass in :mod:`fedexp.config_data`, and a line in :data:`MODELS`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fedexp.config_data import DatasetSpec, MlpModel, ModelConfig
from fedexp.seeding import derive_seed

Weights = dict[str, npt.NDArray[Any]]
"""State-dict name -> array, in the model's own order and dtypes."""


def build_model(config: ModelConfig, spec: DatasetSpec) -> nn.Module:
    """Build a network without drawing initial weights (they are uninitialised memory).

    Args:
        config: Which network, and its options.
        spec: Shape of an image (channels, height, width) and number of classes.

    Returns:
        A module from float32 images, shape (batch, channels, height, width), to logits, shape
        (batch, num_classes).
    """
    with torch.device("meta"):
        model = MODELS[type(config)](config, spec)
    return model.to_empty(device="cpu")


def buffer_names(config: ModelConfig, spec: DatasetSpec) -> list[str]:
    """Return the names of a network's entries that are no parameters (BatchNorm's statistics)."""
    return [name for name, _ in build_model(config, spec).named_buffers()]


def initial_weights(config: ModelConfig, spec: DatasetSpec, seed: int) -> Weights:
    """Draw a network's initial weights; torch's global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "init"))
        return get_weights(MODELS[type(config)](config, spec))


def get_weights(model: nn.Module) -> Weights:
    """Return a copy of the model's state as arrays."""
    return {name: value.detach().cpu().numpy().copy() for name, value in model.state_dict().items()}


def set_weights(model: nn.Module, weights: Mapping[str, npt.NDArray[Any]]) -> None:
    """Copy arrays into the model's own memory.

    Raises:
        ValueError: If the names or shapes are not the model's.
    """
    state = model.state_dict()
    if state.keys() != weights.keys():
        raise ValueError(f"weights for {list(weights)} do not fit a model of {list(state)}")
    for name, target in state.items():
        array = weights[name]
        if array.shape != tuple(target.shape):
            raise ValueError(f"{name} has shape {array.shape}, the model's {tuple(target.shape)}")
        if target.device.type == "cpu":
            np.copyto(target.numpy(), array, casting="same_kind")
        else:
            target.copy_(torch.tensor(array))


def hash_weights(weights: Mapping[str, npt.NDArray[Any]]) -> str:
    """Return the SHA-256 of names, dtypes, shapes and bytes, in the model's order."""
    digest = hashlib.sha256()
    for name, array in weights.items():
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _mlp(config: MlpModel, spec: DatasetSpec) -> nn.Module:
    widths = [math.prod(spec.shape), *config.hidden]
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], spec.num_classes))


MODELS: dict[type[ModelConfig], Callable[[Any, DatasetSpec], nn.Module]] = {MlpModel: _mlp}
