"""pFedMe: every client solves a proximal problem around its copy of the global model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedexp.core.hooks import Gradients, Rule, Turn, numbers_of
from fedexp.core.options import Plan, ranged
from fedexp.core.replies import Carries
from fedexp.core.roles import Client, Job, Server, Setup, Updates
from fedexp.core.weights import Weights
from fedexp.strategies.base import Strategy, register

if TYPE_CHECKING:
    from torch import Tensor

OWN = "own"


@register
@dataclass(frozen=True)
class PFedMe(Strategy):
    """Dinh et al., NeurIPS 2020, arXiv 2006.08848, algorithm 1.

    In each of a round's steps a client draws a batch, moves its own model ``theta`` by ``inner_steps``
    gradient steps on it towards the minimum of ``loss + lam / 2 * ||theta - w||^2``, and then its copy
    ``w`` of the global model by ``eta * lam * (w - theta)``. The global model goes the share ``beta`` of
    the way to the clients' unweighted mean. A client is tested with its ``theta``; a newcomer finds one
    in a round's steps. A step costs ``inner_steps`` gradients; momentum, weight decay and
    ``training.max_grad_norm`` have no part in them, as in the paper.
    """

    personalised = True
    needs_sgd = True
    averages_buffers = True
    asks = ("rule",)
    carries = Carries()

    name: str = "pfedme"
    lam: float = ranged(15.0, gt=0)
    """Strength of the pull between a client's own model and its copy of the global one (lambda)."""
    inner_steps: int = ranged(5, ge=1)
    """Gradient steps of the client's own model on each batch (K)."""
    eta: float = ranged(0.005, gt=0)
    """Learning rate of the copy of the global model; training.learning_rate is that of the own model."""
    beta: float = ranged(1.0, gt=0)
    """Share of the way that the global model goes to the clients' mean."""

    def errors(self, plan: Plan) -> Iterable[str]:
        """Steps towards a minimum must not leap over it."""
        rate = plan.training.learning_rate
        for option, step in (("training.learning_rate", rate), ("strategy.eta", self.eta)):
            if step * self.lam >= 2:
                yield (
                    f"strategy=pfedme diverges where {option} * strategy.lam is 2 or more: {step:g} * "
                    f"{self.lam:g} is {step * self.lam:g}; make one of them smaller"
                )

    def server(self, setup: Setup) -> Server:
        """Return the server's side."""
        return PFedMeServer(self.beta)

    def client(self) -> Client:
        """Return the client's side."""
        return PFedMeClient(self.lam, self.inner_steps, self.eta)


class PFedMeServer(Server):
    """``(1 - beta) w + beta mean(w_i)``, every client alike."""

    def __init__(self, beta: float) -> None:
        self._beta = beta

    def combine(self, t: int, model: Weights, updates: Updates) -> Weights:
        """Go a share of the way to the mean."""
        mean = updates.mean([1 / len(updates)] * len(updates))
        return {name: x + self._beta * (mean[name] - x) for name, x in model.items()}


class PFedMeClient(Client):
    """Move both models, keep one."""

    def __init__(self, lam: float, inner_steps: int, eta: float) -> None:
        self._options = lam, inner_steps, eta

    def run(self, job: Job) -> None:
        """Keep the own model, send the copy of the global one."""
        envelope, own = self._train(job)
        job.state[OWN] = own
        job.send({**own, **envelope.copy})

    def weights_to_test(self, job: Job) -> Weights:
        """Return the own model."""
        own = job.state.get(OWN)
        return own if isinstance(own, dict) else self._train(job)[1]

    def _train(self, job: Job) -> tuple[_Envelope, Weights]:
        envelope = _Envelope(*self._options, job.learning_rate)
        return envelope, job.train(rule=envelope)


class _Envelope(Rule):
    """Moves the own model, which the parameters are, and the copy of the global one beside it."""

    def __init__(self, lam: float, inner_steps: int, eta: float, rate: float) -> None:
        self._lam, self._steps, self._eta, self._rate = lam, inner_steps, eta, rate

    def begin(
        self,
        parameters: Mapping[str, Tensor],
        optimizer: Callable[[Sequence[Tensor]], Callable[[Gradients], None]],
    ) -> None:
        """Lay the copy beside the parameters."""
        self._own = parameters
        self._copy = {name: own.detach().clone() for name, own in parameters.items()}

    def gradients(self, turn: Turn) -> None:
        """Take the inner steps, then one of the copy."""
        import torch

        pairs = list(zip(self._own.values(), self._copy.values(), strict=True))
        for _ in range(self._steps):
            found = turn.gradient()
            with torch.no_grad():
                for (own, copy), slope in zip(pairs, found, strict=True):
                    pull = self._lam * (own - copy)
                    own.sub_(self._rate * (pull if slope is None else slope + pull))
        with torch.no_grad():
            for own, copy in pairs:
                copy.sub_(self._eta * self._lam * (copy - own))

    @property
    def copy(self) -> Weights:
        """The copy of the global model as it is now."""
        return numbers_of(self._copy)
