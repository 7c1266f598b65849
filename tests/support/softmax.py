"""A framework of one's own in forty lines: softmax regression in NumPy."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fedexp.core.weights import Weights
from fedexp.data.examples import Spec
from fedexp.frameworks.base import Array, Batch, Learner, Recipe
from fedexp.models import FrameworkModel


class SoftmaxLearner(Learner):
    """One layer, under torch's names; SGD with momentum, as torch has it."""

    def __init__(self, spec: Spec, dropout: float) -> None:
        self.spec, self.dropout = spec, dropout

    def initial(self, seed: int) -> Weights:
        rng, inputs = np.random.default_rng(seed), math.prod(self.spec.shape)
        weight = rng.uniform(-1, 1, (self.spec.outputs, inputs)) / np.sqrt(inputs)
        return {
            "1.weight": weight.astype(np.float32),
            "1.bias": np.zeros(self.spec.outputs, np.float32),
        }

    def fit(
        self, start: Weights, batches: Iterable[Batch], recipe: Recipe
    ) -> tuple[Weights, list[float]]:
        w = {name: array.copy() for name, array in start.items()}
        velocity = {name: np.zeros_like(array) for name, array in start.items()}
        rng, losses = np.random.default_rng(recipe.seed), list[float]()
        for inputs, labels in batches:
            x = inputs.reshape(len(inputs), -1)
            x = x * (rng.random(x.shape) >= self.dropout).astype(np.float32)
            odds = _softmax(x @ w["1.weight"].T + w["1.bias"])
            losses.append(float(-np.log(odds[np.arange(len(x)), labels]).mean()))
            odds[np.arange(len(x)), labels] -= 1
            gradients = {"1.weight": odds.T @ x / len(x), "1.bias": odds.mean(0)}
            for name in recipe.only:
                gradient = gradients[name] + recipe.weight_decay * w[name]
                if recipe.pull:
                    gradient += recipe.pull * (w[name] - recipe.toward[name])
                if recipe.correction:
                    gradient += recipe.correction[name]
                velocity[name] = recipe.momentum * velocity[name] + gradient
                w[name] = (w[name] - recipe.learning_rate * velocity[name]).astype(np.float32)
        return w, losses

    def outputs(self, weights: Weights, inputs: Array) -> Array:
        found: Array = inputs.reshape(len(inputs), -1) @ weights["1.weight"].T + weights["1.bias"]
        return found


def _softmax(logits: Array) -> Array:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Softmax(FrameworkModel):
    """Softmax regression in NumPy; inputs are dropped at random while it trains."""

    framework = "NumPy"
    tasks = ("classification",)
    name: str = "softmax"
    dropout: float = 0.0

    def learner(self, spec: Spec, task: str) -> Learner:
        return SoftmaxLearner(spec, self.dropout)
