"""SCAFFOLD: clients correct their drift by control variates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedexp.core.options import Span, ranged
from fedexp.core.replies import Carries
from fedexp.core.roles import Client, Job, Order, Server, Setup, Updates
from fedexp.core.weights import Weights
from fedexp.strategies.base import Strategy, gradient_mass, register

CONTROL = "control"


@register
@dataclass(frozen=True)
class Scaffold(Strategy):
    """Karimireddy et al., ICML 2020, arXiv 1910.06378, option II for the clients' control variates.

    Two departures. Updates and control variates are weighted by examples, as in FedAvg; if all clients
    hold equally many, this is the paper. With momentum, the steps of option II are counted by
    ``gradient_mass``; without momentum, this is the paper.
    """

    needs_sgd: ClassVar[bool] = True
    averages_buffers: ClassVar[bool] = True

    asks = ("correction",)

    name: str = "scaffold"
    server_learning_rate: float = ranged(1.0, gt=0, tuned=Span(0.1, 3.0, log=True))
    """Factor of the clients' mean update; 1 takes it as it is."""

    @property
    def carries(self) -> Carries:
        """How much a client's control variate changed."""
        return Carries(arrays=(CONTROL,))

    def server(self, setup: Setup) -> Server:
        """Return the server's side."""
        return ScaffoldServer(setup.num_clients, self.server_learning_rate)

    def client(self) -> Client:
        """Return the client's side."""
        return ScaffoldClient()


class ScaffoldServer(Server):
    """``x += eta (mean y_i - x)`` and ``c = sum n_i c_i / sum n_i``.

    The sums of ``c`` run over all clients; those not met yet count as zeros that hold as many examples as
    the others do on average. A mean over each round's cohort would not do: its weights change with the
    cohort, and what the sum of the rounds is off by pulls every client for good.

    Attributes:
        control: Server control variate ``c``, float arrays named as the model's; empty before round 1.
    """

    def __init__(self, num_clients: int, server_learning_rate: float) -> None:
        self._num_clients, self._rate = num_clients, server_learning_rate
        self._examples: dict[int, int] = {}  # of the clients met so far
        self._total: Weights = {}  # sum n_i c_i
        self.control: Weights = {}

    def instruct(self, t: int, model: Weights, cohort: Sequence[int]) -> dict[int, Order]:
        """Send the control variate beside the weights."""
        if not self.control:
            self.control = {name: np.zeros_like(array) for name, array in model.items()}
            self._total = {name: np.zeros(array.shape) for name, array in model.items()}
        return dict.fromkeys(cohort, Order(model, arrays={CONTROL: self.control}))

    def combine(self, t: int, model: Weights, updates: Updates) -> Weights:
        """Move the weights by the clients' mean, and the control variate by the changes of theirs."""
        mean = updates.mean()
        if self._rate != 1.0:
            mean = {name: x + self._rate * (mean[name] - x) for name, x in model.items()}
        for update in updates:
            self._examples[update.client] = update.num_examples
            for name, change in update.arrays[CONTROL].items():
                self._total[name] += update.num_examples * change.astype(np.float64)
        everybody = self._num_clients * float(np.mean(list(self._examples.values())))
        self.control = {
            name: (total / everybody).astype(model[name].dtype)
            for name, total in self._total.items()
        }
        return mean


class ScaffoldClient(Client):
    """Train on ``g + c - c_i``, then ``c_i`` becomes ``c_i - c + (x - y) / (rate * mass)``."""

    def run(self, job: Job) -> None:
        """Correct every gradient, and send how much the own control variate changed."""
        server = job.order.arrays[CONTROL]
        own = job.state.get(CONTROL) or {
            name: np.zeros_like(server[name]) for name in job.parameters
        }
        assert isinstance(own, dict)
        trained = job.train(correction={name: server[name] - own[name] for name in job.parameters})
        scale = np.float32(job.learning_rate * gradient_mass(job.steps, job.momentum))
        change = {
            name: (job.model[name] - trained[name]) / scale - server[name]
            for name in job.parameters
        }
        job.state[CONTROL] = {name: own[name] + change[name] for name in job.parameters}
        job.send(trained, arrays={CONTROL: change})
