"""What models in Keras have in common; Keras is imported when one is trained."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from fedexp.core.options import Plan
from fedexp.data.examples import Spec
from fedexp.frameworks.base import Learner
from fedexp.models.jax_model import JaxModel


@dataclass(frozen=True)
class KerasModel(JaxModel):
    """A Keras 3 model on Keras' JAX backend, trained by optax as models in JAX are.

    A page of your own says :meth:`layers`.
    """

    framework = "Keras"
    packages = ("keras", "jax", "jaxlib", "optax")
    extra = "keras"

    def errors(self, plan: Plan) -> Iterable[str]:
        """Keras computes with JAX here."""
        backend = os.environ.get("KERAS_BACKEND", "jax")
        if backend != "jax":
            yield (
                f"model={self.name} runs on Keras' JAX backend: KERAS_BACKEND must be jax or unset, got "
                f"{backend}"
            )

    def layers(self, spec: Spec) -> Any:
        """Return a keras.Model whose last layer has no activation.

        Images come as (channels, height, width): convolutions need ``data_format="channels_first"``,
        or a ``Permute((2, 3, 1))`` before them.
        """
        raise NotImplementedError(f"model={self.name} does not say of which layers it is")

    def made(self, spec: Spec, task: str) -> Learner:
        """Return what trains the layers."""
        from fedexp.frameworks.on_keras import KerasLearner

        return KerasLearner(partial(self.layers, spec), spec.shape, bool(spec.vocabulary), task)
