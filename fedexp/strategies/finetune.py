"""FedAvg, and then some steps on every client: what personalised strategies are to be compared with."""

from __future__ import annotations

from dataclasses import dataclass

from fedexp.core.options import one_of, ranged
from fedexp.core.replies import Carries
from fedexp.core.roles import Client, Job
from fedexp.core.weights import Weights
from fedexp.strategies.base import Strategy, register

ALL, HEAD = "all", "head"


@register
@dataclass(frozen=True)
class Finetune(Strategy):
    """FedAvg whose clients are tested after some more steps on their own examples.

    Wang et al., arXiv 1910.10252, and Yu et al., arXiv 2002.04758. Training is FedAvg's to the bit. A
    newcomer does the same as everybody: it takes its steps from the global model.
    """

    personalised = True
    carries = Carries()

    name: str = "finetune"
    tuning_steps: int | None = ranged(None, ge=1)
    """SGD steps that a client takes from the global model before it is tested; null is a round's."""
    tuned: str = one_of(ALL, ALL, HEAD)
    """Which layers move in these steps: all, or the head (the last one)."""

    def client(self) -> Client:
        """Return the client's side."""
        return FinetuneClient(self.tuning_steps, self.tuned)


class FinetuneClient(Client):
    """Train as under FedAvg; before a test, train once more."""

    def __init__(self, steps: int | None, tuned: str) -> None:
        self._steps, self._tuned = steps, tuned

    def weights_to_test(self, job: Job) -> Weights:
        """Take some steps from the global model."""
        return tuned(job, self._steps, self._tuned)


def tuned(job: Job, steps: int | None, which: str) -> Weights:
    """Return the model that was sent after some steps, of all layers or the head alone."""
    only = job.layers.trained(job.layers.head) if which == HEAD else None
    return job.train(steps=steps, only=only)
