"""What trains a Keras model: its layers, on Keras' JAX backend, and the steps of ``on_jax``."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from fedexp.core.options import FedexpError
from fedexp.core.weights import Weights
from fedexp.frameworks.on_jax import JaxLearner, start_jax

BACKEND = "KERAS_BACKEND"
"""The variable that Keras reads when it is imported."""


class KerasLearner(JaxLearner):
    """Trains a Keras model as a pure function of its weights.

    Weights are called after their layer's place and their own name, such as ``1.kernel``: Keras' own
    names count on with every model that a process builds.

    Args:
        build: Returns the model, its weights drawn as Keras draws them.
        shape: Of one input.
        tokens: Whether inputs are integers.
        task: The data set's; it decides the loss.
    """

    def __init__(
        self, build: Callable[[], Any], shape: tuple[int, ...], tokens: bool, task: str
    ) -> None:
        start_jax()
        os.environ.setdefault(BACKEND, "jax")
        import keras

        if keras.config.backend() != "jax":
            raise FedexpError(
                f"Keras was imported with the backend {keras.config.backend()}: set {BACKEND}=jax"
            )
        self._build, self._zeros = build, np.zeros((1, *shape), "int32" if tokens else "float32")
        self._model = self._built(0)
        if any(isinstance(part, keras.layers.BatchNormalization) for part in _parts(self._model)):
            raise FedexpError(
                "Keras' BatchNormalization keeps statistics that gradients do not move, which fedexp "
                "does not train in Keras: use GroupNormalization or LayerNormalization"
            )
        names = {id(v): name for name, v in _named(self._model).items()}
        self._moving = [names[id(v)] for v in self._model.trainable_variables]
        # Nobody's weights are the states that dropout draws from; None stands for them.
        self._still = [names.get(id(v)) for v in self._model.non_trainable_variables]
        super().__init__(self._drawn, self._applied, task)
        self.frozen = frozenset(name for name in self._still if name is not None)

    def _built(self, seed: int) -> Any:
        """Build the model while Python's generator, which Keras takes its seeds from, is keyed."""
        before = random.getstate()
        random.seed(seed)
        try:
            model = self._build()
            model(self._zeros)
        finally:
            random.setstate(before)
        return model

    def _drawn(self, seed: int) -> Weights:
        return {name: np.array(v.numpy()) for name, v in _named(self._built(seed)).items()}

    def _applied(self, weights: Any, inputs: Any, key: Any) -> Any:
        import jax

        still = []
        for number, name in enumerate(self._still):
            if name is not None:
                still.append(weights[name])
            elif key is None:
                still.append(np.zeros(2, np.uint32))
            else:
                still.append(jax.random.bits(jax.random.fold_in(key, number), (2,), np.uint32))
        moving = [weights[name] for name in self._moving]
        outputs, _ = self._model.stateless_call(moving, still, inputs, training=key is not None)
        return outputs


def _parts(layer: Any) -> list[Any]:
    """Return the layers inside a layer, at any depth."""
    inner = list(getattr(layer, "layers", []))
    return inner + [part for one in inner for part in _parts(one)]


def _named(model: Any) -> dict[str, Any]:
    """Return a model's weights, in its order: name -> variable."""
    found: dict[str, Any] = {}
    for place, layer in enumerate(model.layers):
        several = Counter(v.name for v in layer.weights)
        for number, variable in enumerate(layer.weights):
            inner = f"{place}.{number}" if several[variable.name] > 1 else f"{place}"
            found[f"{inner}.{variable.name}"] = variable
    return found
