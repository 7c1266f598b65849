"""q-FedAvg: clients with a high loss count for more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fedexp.core.options import Span, ranged
from fedexp.core.replies import Carries
from fedexp.core.roles import Client, Job, Server, Setup
from fedexp.strategies.base import Strategy, register

GLOBAL_LOSS = "global-loss"
HIGHEST_POWER = 1e15
"""Of a loss, by ``q``: updates are multiplied by it in float32."""


@register
@dataclass(frozen=True)
class QFedAvg(Strategy):
    """Li et al., ICLR 2020, arXiv 1905.10497, by Flower's QFedAvg.

    Clients with a high loss get more weight; the larger ``q``, the more. Flower uses whatever loss
    clients report; here they report what the paper asks for, the loss of the model that they were sent
    on all their examples.
    """

    averages_buffers: ClassVar[bool] = True
    squares_weights: ClassVar[bool] = True

    name: str = "qfedavg"
    q: float = ranged(0.1, ge=0, tuned=Span(0.001, 5.0, log=True))
    """Weight of clients with a high loss; 0 is the same for all."""
    client_learning_rate: float | None = ranged(None, gt=0)
    """The paper's 1 / L; null is the learning rate that clients train with."""

    @property
    def carries(self) -> Carries:
        """The loss of the incoming model."""
        highest = HIGHEST_POWER ** (1 / max(self.q, 1.0))
        return Carries(numbers={GLOBAL_LOSS: (0.0, highest)})

    def server(self, setup: Setup) -> Server:
        """Return Flower's strategy behind the adapter; ``1 / L`` is the learning rate of the round."""
        from flwr.serverapp import strategy

        from fedexp.flower.strategies import WHOLE_COHORT, FlowerServer

        flowers = strategy.QFedAvg(1.0, self.q, train_loss_key=GLOBAL_LOSS, **WHOLE_COHORT)

        def set_rate(t: int) -> None:
            flowers.client_learning_rate = self.client_learning_rate or setup.learning_rate(t)

        return FlowerServer(flowers, before_round=set_rate, reads="one by one")

    def client(self) -> Client:
        """Return the client's side."""
        return QFedAvgClient()


class QFedAvgClient(Client):
    """Train as usual and say how good the incoming model was."""

    def run(self, job: Job) -> None:
        """Take the loss before training."""
        before = job.loss(job.model)
        job.send(job.train(), numbers={GLOBAL_LOSS: before})
