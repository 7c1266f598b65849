"""Fully connected networks in Keras."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from fedexp.core.options import Plan, ranged
from fedexp.data.examples import Spec
from fedexp.models.base import NUMBERS, WHOLE, register
from fedexp.models.keras_model import KerasModel


@register
@dataclass(frozen=True)
class KerasMlp(KerasModel):
    """The network of ``model=mlp`` in Keras: dense layers with ReLU between them.

    It draws its initial weights as Keras does (Glorot's uniform distribution, biases of zero).
    """

    kinds = NUMBERS
    tasks = WHOLE

    name: str = "keras_mlp"
    hidden: list[int] = field(default_factory=lambda: [128])
    """Widths of the hidden layers, in units."""
    dropout: float = ranged(0.0, ge=0, lt=1)
    """Share of each hidden layer's units that is dropped in a training step."""

    def errors(self, plan: Plan) -> Iterable[str]:
        """Widths are numbers of units."""
        yield from super().errors(plan)
        if any(width < 1 for width in self.hidden):
            yield f"model.hidden must hold widths >= 1, got {list(self.hidden)}"

    def layers(self, spec: Spec) -> Any:
        """Return the layers."""
        from keras import Sequential, layers

        found = [layers.Flatten()]
        for width in self.hidden:
            found += [layers.Dense(width, activation="relu"), layers.Dropout(self.dropout)]
        return Sequential([*found, layers.Dense(spec.outputs)])
