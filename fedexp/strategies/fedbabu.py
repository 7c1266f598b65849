"""FedBABU: only the body is trained together; the head waits until a client is tested."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from fedexp.core.layers import Layers
from fedexp.core.options import one_of, ranged
from fedexp.core.replies import Carries
from fedexp.core.roles import Client, Job
from fedexp.core.weights import Weights
from fedexp.strategies.base import Strategy, register
from fedexp.strategies.finetune import ALL, HEAD, tuned


@register
@dataclass(frozen=True)
class FedBabu(Strategy):
    """Oh et al., arXiv 2106.06042: the head stays as it was drawn while the body is federated.

    Before a client is tested, it takes some steps from the global model, of all layers or of its head
    alone; so does a newcomer. The paper takes five epochs, here ``tuning_steps`` null takes a round's
    steps, so that every personalised strategy trains for as long.
    """

    personalised = True
    asks = ("only",)
    carries = Carries()

    name: str = "fedbabu"
    tuning_steps: int | None = ranged(None, ge=1)
    """SGD steps that a client takes from the global model before it is tested; null is a round's."""
    tuned: str = one_of(ALL, ALL, HEAD)
    """Which layers move in these steps: all, or the head (the last one)."""

    def keeps(self, layers: Layers) -> Collection[str]:
        """Return the head: nobody needs to send it, because it does not change."""
        return layers.head

    def client(self) -> Client:
        """Return the client's side."""
        return FedBabuClient(self.tuning_steps, self.tuned)


class FedBabuClient(Client):
    """Train the body; before a test, fine-tune."""

    def __init__(self, steps: int | None, tuned: str) -> None:
        self._steps, self._tuned = steps, tuned

    def run(self, job: Job) -> None:
        """Train all layers but the head."""
        job.send(job.train(only=job.layers.trained(job.layers.others(job.kept))))

    def weights_to_test(self, job: Job) -> Weights:
        """Take some steps from the global model."""
        return tuned(job, self._steps, self._tuned)
