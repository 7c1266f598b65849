"""What models in JAX have in common; JAX is imported when one is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from fedexp.core.weights import Weights
from fedexp.data.examples import Spec
from fedexp.frameworks.base import Learner
from fedexp.models.base import FrameworkModel


@dataclass(frozen=True)
class JaxModel(FrameworkModel):
    """A pure function of weights and inputs, trained by JAX and optax on one thread of the CPU.

    A page of your own says :meth:`initial` and :meth:`apply`.
    """

    framework = "JAX"
    packages: ClassVar[tuple[str, ...]] = ("jax", "jaxlib", "optax")
    extra = "jax"
    allows: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **FrameworkModel.allows,
        "backend.device": ("auto", "cpu"),
    }

    def initial(self, spec: Spec, rng: np.random.Generator) -> Weights:
        """Draw the weights to start from, float32: name -> array."""
        raise NotImplementedError(f"model={self.name} does not say where it starts")

    def apply(self, weights: Any, inputs: Any, key: Any) -> Any:
        """Return the outputs of a batch; JAX traces it.

        Args:
            weights: Name -> array, as :meth:`initial` named them.
            inputs: As the data set prepares them, shape (n, ...); tokens are int32.
            key: What dropout draws from, another in every step; None while nothing is trained.
        """
        raise NotImplementedError(f"model={self.name} does not say what it computes")

    def learner(self, spec: Spec, task: str) -> Learner:
        """Return what trains the function; the same for equal pages, for the sake of what is compiled."""
        key = (type(self), repr(self), spec, task)
        if key not in _learners:
            _learners[key] = self.made(spec, task)
        return _learners[key]

    def made(self, spec: Spec, task: str) -> Learner:
        """Make what trains the function."""
        from fedexp.frameworks.on_jax import JaxLearner

        return JaxLearner(partial(self._drawn, spec), self.apply, task)

    def _drawn(self, spec: Spec, seed: int) -> Weights:
        return self.initial(spec, np.random.default_rng(seed))


_learners: dict[tuple[Any, ...], Learner] = {}


def drawn_layer(rng: np.random.Generator, name: str, inputs: int, outputs: int) -> Weights:
    """Draw a layer's weight and bias as torch does: uniform between ±1 / sqrt(what an output sums).

    Args:
        rng: What to draw from.
        name: The layer's; its weights are ``<name>.weight``, shape (outputs, inputs), and
            ``<name>.bias``.
        inputs: Channels or numbers that come in.
        outputs: Channels or numbers that go out.
    """
    bound = 1 / np.sqrt(inputs)
    return {
        f"{name}.weight": rng.uniform(-bound, bound, (outputs, inputs)).astype(np.float32),
        f"{name}.bias": rng.uniform(-bound, bound, outputs).astype(np.float32),
    }
