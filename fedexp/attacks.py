"""The pages of ``clients.byzantine.kind``: what faulty clients do.

An attack acts on a client's examples, on the weights it sends, or, where faulty clients collude, on what
all of them send in a round.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedexp.core.options import ranged
from fedexp.core.registry import Registry
from fedexp.core.roles import Updates
from fedexp.core.weights import Weights
from fedexp.data.examples import Examples

__all__ = ["Attack", "choices", "get", "register"]


@dataclass(frozen=True)
class Attack:
    """What a faulty client does; every method is honest unless a page overrides it.

    ``scale`` is ``clients.byzantine.scale``; further options of an attack are set in
    ``clients.byzantine.options``.

    Attributes:
        tasks: The tasks whose examples it can act on; none stands for every task.
    """

    tasks: ClassVar[tuple[str, ...]] = ()

    name: str = ""
    scale: float = ranged(1.0, gt=0)
    """Strength of the attack, in a unit of its own; set as ``clients.byzantine.scale``."""

    @property
    def acts_on_weights(self) -> bool:
        """Whether it changes the weights that are sent, and not only what is trained on."""
        own = type(self)
        return own.weights is not Attack.weights or own.collude is not Attack.collude

    def examples(self, held: Examples, num_classes: int, rng: np.random.Generator) -> Examples:
        """Return what the client trains on.

        Args:
            held: Its own examples; not to be written to.
            num_classes: Labels are 0 .. num_classes - 1; 0 where there are no labels.
            rng: The same in every round.
        """
        return held

    def weights(self, before: Weights, after: Weights, rng: np.random.Generator) -> Weights:
        """Return what the client sends in place of its weights.

        Args:
            before: The weights it was sent.
            after: The weights it trained, in the same names, shapes and dtypes.
            rng: Its own in every round.
        """
        return after

    def collude(
        self, model: Weights, updates: Updates, faulty: Collection[int], rng: np.random.Generator
    ) -> dict[int, Weights]:
        """Return what faulty clients send once they know what everybody would send.

        Args:
            model: The global model that the round started from.
            updates: What all clients of the round sent, in order.
            faulty: Partition ids of those that collude; some need not take part in the round.
            rng: The round's.

        Returns:
            Partition id -> weights, of those that send something else.
        """
        return {}


REGISTRY: Registry[Attack] = Registry("clients.byzantine.kind", Attack)
register, choices, get = REGISTRY.register, REGISTRY.choices, REGISTRY.get


@register
@dataclass(frozen=True)
class LabelFlip(Attack):
    """Train on label ``num_classes - 1 - y``."""

    tasks = ("classification",)

    name: str = "label_flip"

    def examples(self, held: Examples, num_classes: int, rng: np.random.Generator) -> Examples:
        """Turn the labels round."""
        return Examples(held.inputs, num_classes - 1 - held.targets)


@register
@dataclass(frozen=True)
class SignFlip(Attack):
    """Send the global weights minus ``scale`` times the update; integers are sent unchanged."""

    name: str = "sign_flip"

    def weights(self, before: Weights, after: Weights, rng: np.random.Generator) -> Weights:
        """Go the other way."""
        sent = dict(after)
        for name, array in _floats(before).items():
            sent[name] = (array + -self.scale * (after[name] - array)).astype(array.dtype)
        return sent


@register
@dataclass(frozen=True)
class Gaussian(Attack):
    """Send the global weights plus noise of standard deviation ``scale``; integers are sent unchanged."""

    name: str = "gaussian"

    def weights(self, before: Weights, after: Weights, rng: np.random.Generator) -> Weights:
        """Draw noise for every parameter, in the model's order."""
        sent = dict(after)
        for name, array in _floats(before).items():
            noise = self.scale * rng.standard_normal(array.shape)
            sent[name] = (array + noise).astype(array.dtype)
        return sent


@register
@dataclass(frozen=True)
class LittleIsEnough(Attack):
    """Agree to send the mean of all updates minus ``scale`` standard deviations, per coordinate.

    Baruch et al., arXiv 1902.06635. Small enough to pass for honest, large enough to do harm. Departure:
    the paper's attackers guess mean and deviation from their own honest updates, these know everybody's;
    its z is ``scale``.
    """

    name: str = "little_is_enough"

    def collude(
        self, model: Weights, updates: Updates, faulty: Collection[int], rng: np.random.Generator
    ) -> dict[int, Weights]:
        """Agree on one set of weights."""
        together = dict(updates[0].weights)
        for name, array in _floats(model).items():
            aim = np.empty(array.size, array.dtype)
            for where, values in updates.blocks(name):
                values = values.astype(np.float64)
                aim[where] = values.mean(axis=0) - self.scale * values.std(axis=0)
            together[name] = aim.reshape(array.shape)
        return {update.client: together for update in updates if update.client in faulty}


def _floats(weights: Weights) -> Weights:
    return {name: a for name, a in weights.items() if np.issubdtype(a.dtype, np.floating)}
