"""A network of two layers in NumPy, and what papers do with it: written from the papers alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fedexp.config.schema import Config
from fedexp.federation.dealing import federate

Floats = npt.NDArray[np.float64]
Net = dict[str, Floats]
BODY, HEAD = ("1.weight", "1.bias"), ("3.weight", "3.bias")


class Holder:
    """A client's examples, and the gradient of its mean cross-entropy."""

    def __init__(self, inputs: Any, labels: Any) -> None:
        pixels = inputs.reshape(len(inputs), -1).astype(np.float64) / 255
        self.inputs, self.labels = (pixels - 0.5) / 0.5, labels

    def features(self, net: Net) -> Floats:
        return np.asarray(np.maximum(self.inputs @ net["1.weight"].T + net["1.bias"], 0))

    def logits(self, net: Net) -> Floats:
        return self.features(net) @ net["3.weight"].T + net["3.bias"]

    def gradient(self, net: Net, wrong: Floats | None = None, on_features: Any = 0.0) -> Net:
        """Return that of the loss; ``wrong`` is the gradient by the logits where it is another."""
        hidden = self.features(net)
        if wrong is None:
            wrong = (softmax(self.logits(net)) - np.eye(10)[self.labels]) / len(self.labels)
        below = (wrong @ net["3.weight"] + on_features) * (hidden > 0)
        return {
            "1.weight": below.T @ self.inputs,
            "1.bias": below.sum(0),
            "3.weight": wrong.T @ hidden,
            "3.bias": wrong.sum(0),
        }

    def loss(self, net: Net) -> float:
        logits = self.logits(net)
        odds = softmax(logits)[np.arange(len(logits)), self.labels]
        return float(-np.log(odds).mean())

    def sgd(self, net: Net, rate: float, steps: int, only: Sequence[str] = (*BODY, *HEAD)) -> Net:
        net = dict(net)
        for _ in range(steps):
            slope = self.gradient(net)
            net = {n: a - rate * slope[n] if n in only else a for n, a in net.items()}
        return net


def softmax(logits: Floats) -> Floats:
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True))


def holders(config: Config) -> list[Holder]:
    """Return what every client of an experiment holds."""
    data = federate(config)
    found = [data.train_examples([k]) for k in range(config.clients.num)]
    return [Holder(examples.inputs, examples.targets) for examples in found]


def mean(nets: Sequence[Net], counts: Sequence[float]) -> Net:
    """Return the mean weighted by counts."""
    shares = np.array(counts) / sum(counts)
    return {n: sum(s * net[n] for s, net in zip(shares, nets, strict=True)) for n in nets[0]}
