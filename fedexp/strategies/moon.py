"""MOON: clients' features are drawn to the global model's and away from their own last ones."""

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

LAST = "last"


@register
@dataclass(frozen=True)
class Moon(Strategy):
    """Li et al., CVPR 2021, arXiv 2103.16257: model-contrastive learning.

    FedAvg whose clients add ``mu`` times ``-log(e^(s_g / tau) / (e^(s_g / tau) + e^(s_l / tau)))`` to
    their loss: ``s_g`` is the cosine between an example's features under the model that is trained and
    under the global one, ``s_l`` that with the client's model at the end of its last round. In a client's
    first round the latter is the global model. With ``mu`` 0 this is FedAvg. Departure: features are what
    the last layer takes, where the paper puts a projection head of two layers before it.
    """

    asks = ("loss",)
    carries = Carries()

    name: str = "moon"
    mu: float = ranged(1.0, ge=0, tuned=Span(0.1, 10.0, log=True))
    """Weight of the contrast, which the paper tunes among 0.1, 1, 5 and 10; 0 is FedAvg."""
    tau: float = ranged(0.5, gt=0)
    """Temperature of the cosines."""

    def errors(self, plan: Plan) -> Iterable[str]:
        """The paper's loss is that of a classification."""
        return labels_only(self.name, plan)

    def client(self) -> Client:
        """Return the client's side."""
        return MoonClient(self.mu, self.tau)


class MoonClient(Client):
    """Train beside the global model and the own last one."""

    def __init__(self, mu: float, tau: float) -> None:
        self._mu, self._tau = mu, tau

    def run(self, job: Job) -> None:
        """Keep what was trained for the next round."""
        kept = job.state.get(LAST)
        last = kept if isinstance(kept, dict) else job.model
        trained = job.train(loss=contrastive(job.model, last, self._mu, self._tau))
        job.state[LAST] = trained
        job.send(trained)


def contrastive(model: Weights, last: Weights, mu: float, tau: float) -> Loss:
    """Return the loss of a client that was sent a model and had another one at the end of its round."""

    def of(seen: Seen, targets: Tensor, others: Sequence[Seen]) -> Tensor:
        import torch
        from torch.nn import functional as F

        mine = seen.features
        cosines = [F.cosine_similarity(mine, other.features, dim=-1) / tau for other in others]
        pairs = torch.stack(cosines, dim=-1)
        contrast = -pairs.log_softmax(-1)[..., 0].mean()
        return F.cross_entropy(seen.outputs, targets) + mu * contrast

    return Loss(of, beside=(model, last))
