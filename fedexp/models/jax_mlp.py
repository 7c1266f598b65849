"""Fully connected networks in JAX."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from fedexp.core.options import Plan, ranged
from fedexp.core.weights import Weights
from fedexp.data.examples import Spec
from fedexp.models.base import NUMBERS, WHOLE, register
from fedexp.models.jax_model import JaxModel, drawn_layer


@register
@dataclass(frozen=True)
class JaxMlp(JaxModel):
    """The network of ``model=mlp`` in JAX, under the same names and in the same layout.

    So its weights go into the other, and training it comes to the same but for rounding. It draws its
    initial weights from the same distributions, though not the same numbers.
    """

    kinds = NUMBERS
    tasks = WHOLE

    name: str = "jax_mlp"
    hidden: list[int] = field(default_factory=lambda: [128])
    """Widths of the hidden layers, in units."""
    dropout: float = ranged(0.0, ge=0, lt=1)
    """Share of each hidden layer's units that is dropped in a training step."""

    def errors(self, plan: Plan) -> Iterable[str]:
        """Widths are numbers of units."""
        if any(width < 1 for width in self.hidden):
            yield f"model.hidden must hold widths >= 1, got {list(self.hidden)}"

    def initial(self, spec: Spec, rng: np.random.Generator) -> Weights:
        """Draw the layers; the first is called 1, the next 3, as in a torch.nn.Sequential."""
        widths, drawn = [math.prod(spec.shape), *self.hidden, spec.outputs], Weights()
        for number, (inputs, outputs) in enumerate(pairwise(widths)):
            drawn |= drawn_layer(rng, str(2 * number + 1), inputs, outputs)
        return drawn

    def apply(self, weights: Any, inputs: Any, key: Any) -> Any:
        """Flatten, and go through the layers with ReLU between them."""
        import jax

        x, last = inputs.reshape(len(inputs), -1), len(self.hidden)
        for number in range(last + 1):
            name = 2 * number + 1
            x = x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
            if number == last:
                break
            x = jax.nn.relu(x)
            if key is not None and self.dropout:
                kept = jax.random.bernoulli(
                    jax.random.fold_in(key, number), 1 - self.dropout, x.shape
                )
                x = x * kept / (1 - self.dropout)
        return x
