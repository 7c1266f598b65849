"""FedRoD: a head that is fair to all labels for everybody, and one more for every client."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedexp.core.hooks import Loss, Seen
from fedexp.core.options import Plan
from fedexp.core.replies import Carries
from fedexp.core.roles import Client, Job
from fedexp.core.weights import Weights
from fedexp.strategies.base import Strategy, register
from fedexp.strategies.losses import labels_only

if TYPE_CHECKING:
    from torch import Tensor

OWN = "own"


@register
@dataclass(frozen=True)
class FedRod(Strategy):
    """Chen and Chao, ICLR 2022, arXiv 2107.00778, with linear personal heads.

    Body and generic head are FedAvg's, on the balanced softmax loss: cross-entropy of the logits plus the
    logarithm of how many examples the client has of each label. A client's own head is added to the
    generic one, ``logits = (generic + own)(features)``, and is trained on plain cross-entropy, the rest
    fixed. Departures: it takes a round's steps after the others, where the paper trains both at once; and
    heads are linear, without the paper's hypernetwork. A newcomer trains a head of its own for a round's
    steps.
    """

    personalised = True
    asks = ("loss", "only")
    carries = Carries()

    name: str = "fedrod"

    def errors(self, plan: Plan) -> Iterable[str]:
        """Labels are counted."""
        return labels_only(self.name, plan)

    def client(self) -> Client:
        """Return the client's side."""
        return FedRodClient()


class FedRodClient(Client):
    """Train for all labels alike, then the own head."""

    def run(self, job: Job) -> None:
        """Send the generic model, keep the own head."""
        own = self._own(job)
        trained = job.train(loss=balanced(job.label_counts().tolist()))
        job.state[OWN] = self._tuned(job, trained, own, again=True)
        job.send(trained)

    def weights_to_test(self, job: Job) -> Weights:
        """Add the own head to the generic one."""
        own = self._own(job) if job.state else self._tuned(job, job.model, self._own(job))
        return {**job.model, **{name: job.model[name] + head for name, head in own.items()}}

    def _own(self, job: Job) -> Weights:
        kept = job.state.get(OWN)
        if isinstance(kept, dict):
            return kept
        return {name: 0 * job.model[name] for name in job.layers.trained(job.layers.head)}

    def _tuned(self, job: Job, generic: Weights, own: Weights, again: bool = False) -> Weights:
        """Return the own head after a round's steps, the generic model fixed."""
        start = {**generic, **{name: generic[name] + head for name, head in own.items()}}
        trained = job.train(start, only=list(own), again=again)
        return {name: trained[name] - generic[name] for name in own}


def balanced(counts: Sequence[int]) -> Loss:
    """Return the balanced softmax loss (Ren et al., arXiv 2007.10740) of a client's label counts."""

    def of(seen: Seen, targets: Tensor, _: Sequence[Seen]) -> Tensor:
        import torch
        from torch.nn import functional as F

        prior = torch.tensor(counts, dtype=torch.float32, device=targets.device).log()
        return F.cross_entropy(seen.outputs + prior, targets)

    return Loss(of)
