"""FedALA: every client learns how much of the global model to take over."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from fedexp.core.hooks import Gradients, Rule, Turn, numbers_of
from fedexp.core.layers import HEAD
from fedexp.core.options import ranged
from fedexp.core.replies import Carries
from fedexp.core.roles import Client, Job
from fedexp.core.weights import Weights
from fedexp.strategies.base import Strategy, register

if TYPE_CHECKING:
    from torch import Tensor

OWN, FACTORS = "own", "factors"
WINDOW, SPREAD, MOST_EPOCHS = 10, 0.1, 50
"""The first time, factors are learned until the losses of the last ten epochs have a standard deviation
below 0.1, as in the authors' code; they have no bound on the number of epochs."""


@register
@dataclass(frozen=True)
class FedAla(Strategy):
    """Zhang et al., AAAI 2023, arXiv 2212.01197: adaptive local aggregation.

    A client takes the global model's lower layers as they are. In its adapted layers it starts from ``own
    + (global - own) * W``, where each of the factors ``W`` in [0, 1] is learned by gradient steps on a
    share of its examples; then it trains as under FedAvg. It is tested with that start, before it trains.
    Factors begin at 1, where this is FedAvg, and last from round to round. The paper has no rule for
    newcomers, who have nothing to adapt: here they take a round's steps from the global model.
    """

    personalised = True
    asks = ("only", "rule")
    carries = Carries()

    name: str = "fedala"
    eta: float = ranged(1.0, ge=0)
    """Learning rate of the factors; 0 leaves them at 1, which is FedAvg."""
    share: float = ranged(0.8, gt=0, le=1)
    """Share of its examples that a client learns its factors on."""
    adapted_layers: list[str] = field(default_factory=lambda: [HEAD])
    """Layers with factors: head (the last one), norm, or how their entries begin, as fc or layer4."""

    def client(self) -> Client:
        """Return the client's side."""
        return FedAlaClient(self.eta, self.share, self.adapted_layers)


class FedAlaClient(Client):
    """Adapt, train, send."""

    def __init__(self, eta: float, share: float, adapted: Sequence[str]) -> None:
        self._eta, self._share, self._adapted = eta, share, adapted

    def run(self, job: Job) -> None:
        """Keep the trained layers and the factors for the next round."""
        start, factors = self._adapt(job)
        trained = job.train(start, again=True)  # on the batches that FedAvg would take
        job.state[OWN] = {name: trained[name] for name in self._layers(job)}
        if factors:
            job.state[FACTORS] = factors
        job.send(trained)

    def weights_to_test(self, job: Job) -> Weights:
        """Return the adapted global model."""
        return self._adapt(job)[0] if job.state else job.train()

    def _layers(self, job: Job) -> list[str]:
        return job.layers.trained(job.layers.chosen(self._adapted, "strategy.adapted_layers"))

    def _adapt(self, job: Job) -> tuple[Weights, Weights]:
        """Return where training starts, and the factors; none in a client's first round."""
        own, model, names = job.state.get(OWN), job.model, self._layers(job)
        if not isinstance(own, dict):
            return model, {}
        kept = job.state.get(FACTORS)
        known = isinstance(kept, dict)
        factors = kept if isinstance(kept, dict) else {n: np.ones_like(model[n]) for n in names}
        steps = max(1, round(self._share * job.epoch_steps))
        start, losses = {**model, **_between(own, model, factors)}, list[float]()
        while True:
            learning = _Learning(own, model, factors, self._eta)
            adapted = job.train(start, steps=steps, only=names, rule=learning)
            start = {**model, **{name: adapted[name] for name in names}}
            factors = learning.factors
            losses.append(learning.loss)
            calm = len(losses) > WINDOW and float(np.std(losses[-WINDOW:])) < SPREAD
            if known or calm or len(losses) == MOST_EPOCHS:
                return start, factors


def _between(own: Weights, model: Weights, factors: Weights) -> Weights:
    # Written so that a factor of 1 gives the global model to the bit.
    return {n: model[n] + (own[n] - model[n]) * (1 - factor) for n, factor in factors.items()}


class _Learning(Rule):
    """Moves the factors along the gradient; the parameters follow.

    Attributes:
        loss: Of the last batch.
    """

    def __init__(self, own: Weights, model: Weights, factors: Weights, eta: float) -> None:
        self._given, self._eta, self.loss = (own, model, factors), eta, 0.0

    def begin(
        self,
        parameters: Mapping[str, Tensor],
        optimizer: Callable[[Sequence[Tensor]], Callable[[Gradients], None]],
    ) -> None:
        """Lay the factors beside the parameters."""
        import torch

        own, model, factors = (
            [torch.tensor(weights[n]).to(p.device) for n, p in parameters.items()]
            for weights in self._given
        )
        self._model, self._away = model, [x - g for g, x in zip(model, own, strict=True)]
        self._parameters, self._factors = parameters, factors

    def gradients(self, turn: Turn) -> None:
        """Take a step of the factors."""
        import torch

        found, everything = turn.gradient(), self._parameters.values()
        self.loss = float(turn.loss)
        with torch.no_grad():
            for parameter, slope, factor, model, away in zip(
                everything, found, self._factors, self._model, self._away, strict=True
            ):
                if slope is not None:
                    factor.add_(self._eta * slope * away).clamp_(0, 1)
                parameter.copy_(model + away * (1 - factor))

    @property
    def factors(self) -> Weights:
        """The factors as they are now."""
        return numbers_of(dict(zip(self._parameters, self._factors, strict=True)))
