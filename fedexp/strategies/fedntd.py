"""FedNTD: clients distil what the global model says of the labels that are not true."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedexp.core.hooks import Loss, Seen
from fedexp.core.options import Plan, Span, ranged
from fedexp.core.replies import Carries
from fedexp.core.roles import Client, Job
from fedexp.core.weights import Weights
from fedexp.strategies.base import Strategy, register
from fedexp.strategies.losses import labels_only

if TYPE_CHECKING:
    from torch import Tensor


@register
@dataclass(frozen=True)
class FedNtd(Strategy):
    """Lee et al., NeurIPS 2022, arXiv 2106.03097: not-true distillation.

    FedAvg whose clients add to the cross-entropy ``beta`` times the Kullback-Leibler divergence of their
    softmax over the labels that are not an example's own from the global model's, at temperature ``tau``
    and times ``tau ** 2``. With ``beta`` 0 this is FedAvg.
    """

    asks = ("loss",)
    carries = Carries()

    name: str = "fedntd"
    beta: float = ranged(1.0, ge=0, tuned=Span(0.01, 10.0, log=True))
    """Weight of the distillation; 0 is FedAvg."""
    tau: float = ranged(1.0, gt=0)
    """Temperature of the softmax."""

    def errors(self, plan: Plan) -> Iterable[str]:
        """Labels are what is not true."""
        return labels_only(self.name, plan)

    def client(self) -> Client:
        """Return the client's side."""
        return FedNtdClient(self.beta, self.tau)


class FedNtdClient(Client):
    """Train beside the model that was sent."""

    def __init__(self, beta: float, tau: float) -> None:
        self._beta, self._tau = beta, tau

    def run(self, job: Job) -> None:
        """Distil while training."""
        job.send(job.train(loss=not_true_distillation(job.model, self._beta, self._tau)))


def not_true_distillation(teacher: Weights, beta: float, tau: float) -> Loss:
    """Return the loss of a client that was sent a model."""

    def of(seen: Seen, targets: Tensor, others: Sequence[Seen]) -> Tensor:
        import torch
        from torch.nn import functional as F

        n, labels = seen.outputs.shape
        wrong = torch.ones_like(seen.outputs, dtype=torch.bool)
        wrong.scatter_(1, targets[:, None], value=False)
        mine, theirs = (x.outputs[wrong].view(n, labels - 1) / tau for x in (seen, others[0]))
        apart = F.kl_div(mine.log_softmax(1), theirs.softmax(1), reduction="batchmean")
        return F.cross_entropy(seen.outputs, targets) + beta * tau**2 * apart

    return Loss(of, beside=(teacher,))
