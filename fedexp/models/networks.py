"""Networks by name, and their weights as plain NumPy arrays.

A new network is a function here, a dataclass in ``datasets.options``, and a line in :data:`MODELS`.
No network may draw random numbers while it is trained: a client's result depends on its seed alone.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fedexp.core.seeding import derive_seed
from fedexp.datasets.options import (
    CnnModel,
    DatasetSpec,
    Lenet5Model,
    LogisticModel,
    MlpModel,
    MobilenetV3SmallModel,
    ModelConfig,
    Resnet18Model,
    TwoNnModel,
)

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
        return get_weights(MODELS[type(config)](config, spec).state_dict())


def get_weights(state: Mapping[str, Tensor]) -> Weights:
    """Return a copy of a model's ``state_dict()`` as arrays."""
    return {name: value.cpu().numpy().copy() for name, value in state.items()}


def set_weights(state: Mapping[str, Tensor], weights: Mapping[str, npt.NDArray[Any]]) -> None:
    """Copy arrays into a model's own memory.

    Args:
        state: The model's ``state_dict()``, whose tensors are that memory. Making it takes longer than
            filling that of a small model: whoever loads many weights keeps it.
        weights: What to copy.

    Raises:
        ValueError: If the names or shapes are not the model's.
    """
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
    return _fully_connected(config.hidden, spec)


def _logistic(_config: LogisticModel, spec: DatasetSpec) -> nn.Module:
    return _fully_connected([], spec)


def _two_nn(_config: TwoNnModel, spec: DatasetSpec) -> nn.Module:
    """McMahan et al., arXiv 1602.05629, section 3."""
    return _fully_connected([200, 200], spec)


def _fully_connected(hidden: Sequence[int], spec: DatasetSpec) -> nn.Module:
    widths = [math.prod(spec.shape), *hidden]
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], spec.num_classes))


def _cnn(_config: CnnModel, spec: DatasetSpec) -> nn.Module:
    """McMahan et al., arXiv 1602.05629, section 3.

    The paper does not speak of padding; only convolutions that keep the size give its 1,663,370
    parameters on MNIST.
    """
    channels, height, width = spec.shape
    return nn.Sequential(
        nn.Conv2d(channels, 32, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * (height // 4) * (width // 4), 512),
        nn.ReLU(),
        nn.Linear(512, spec.num_classes),
    )


def _lenet5(_config: Lenet5Model, spec: DatasetSpec) -> nn.Module:
    """Li et al. (NIID-Bench), arXiv 2102.02079: ReLU and maximum where LeCun et al. had neither."""
    channels, height, width = spec.shape
    rows, columns = (((side - 4) // 2 - 4) // 2 for side in (height, width))
    return nn.Sequential(
        nn.Conv2d(channels, 6, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * rows * columns, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, spec.num_classes),
    )


def _resnet18(config: Resnet18Model, spec: DatasetSpec) -> nn.Module:
    """He et al., arXiv 1512.03385, from torchvision, with GroupNorm for BatchNorm.

    Averages of BatchNorm's statistics fit no client whose labels are skewed (Hsieh et al., arXiv
    1910.00189); Reddi et al., arXiv 2003.00295, train this network with GroupNorm. The stem is made
    for small images: 3x3 of stride 1 instead of 7x7 of stride 2, and no pooling after it.
    """
    from torchvision.models import resnet18

    model: nn.Module = resnet18(
        num_classes=spec.num_classes,
        norm_layer=lambda channels: nn.GroupNorm(config.groups, channels),
    )
    model.conv1 = _stem(spec.shape[0], 64)
    model.maxpool = nn.Identity()
    return model


def _mobilenet_v3_small(_config: MobilenetV3SmallModel, spec: DatasetSpec) -> nn.Module:
    """Howard et al., arXiv 1905.02244, from torchvision.

    Departures: no dropout, whose masks would come from torch's global generator; and a stem of stride
    1 for small images. With stride 2, images of 28 or 32 pixels shrink to a single one, and BatchNorm
    refuses a batch of one image.
    """
    from torchvision.models import mobilenet_v3_small

    model: nn.Module = mobilenet_v3_small(num_classes=spec.num_classes, dropout=0.0)
    model.get_submodule("features.0")[0] = _stem(spec.shape[0], 16)  # type: ignore[operator]
    return model


def _stem(channels: int, outputs: int) -> nn.Conv2d:
    """Return a first convolution for small images, drawn as torchvision draws its own."""
    stem = nn.Conv2d(channels, outputs, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
    return stem


MODELS: dict[type[ModelConfig], Callable[[Any, DatasetSpec], nn.Module]] = {
    MlpModel: _mlp,
    LogisticModel: _logistic,
    TwoNnModel: _two_nn,
    CnnModel: _cnn,
    Lenet5Model: _lenet5,
    Resnet18Model: _resnet18,
    MobilenetV3SmallModel: _mobilenet_v3_small,
}
