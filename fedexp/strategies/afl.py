"""AFL: the model for the worst mixture of clients."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedexp.core.options import Plan, Span, ranged
from fedexp.core.replies import Carries
from fedexp.core.roles import Client, Server, Setup, Updates
from fedexp.core.weights import Weights
from fedexp.strategies.base import Strategy, register
from fedexp.strategies.qfedavg import GLOBAL_LOSS, QFedAvgClient

HIGHEST_LOSS, FAR = 1e15, 1e9
MOST_CLIENTS = 1_000_000


@register
@dataclass(frozen=True)
class Afl(Strategy):
    """Mohri et al., ICML 2019, arXiv 1902.00146: agnostic federated learning.

    Every client has a share of the model, all the same at first, and the model is the mean of the
    clients' by these shares. After each round shares move along the losses that the model had before it,
    by ``share_learning_rate``, and are projected back to where they are at least 0 and sum to 1: clients
    that the model serves badly come to count for more. Departures: clients take a round's local steps,
    where the paper takes one gradient; shares of clients that are not in a round wait, those in it are
    scaled to sum to 1. With ``share_learning_rate`` 0 it is the plain mean of the clients' models,
    whatever they hold.
    """

    name: str = "afl"
    share_learning_rate: float = ranged(0.1, ge=0, tuned=Span(0.001, 1.0, log=True))
    """Step size of the shares, per unit of loss."""

    @property
    def carries(self) -> Carries:
        """The loss of the incoming model."""
        return Carries(numbers={GLOBAL_LOSS: (0.0, HIGHEST_LOSS)})

    def errors(self, plan: Plan) -> Iterable[str]:
        """There is a share for every client."""
        if plan.clients.num > MOST_CLIENTS:
            yield (
                f"strategy=afl: keeps a share for every client, and clients.num={plan.clients.num} are "
                f"more than {MOST_CLIENTS}; strategy=qfedavg favours clients with high losses, too"
            )

    def server(self, setup: Setup) -> Server:
        """Return the server's side."""
        return AflServer(setup.num_clients, self.share_learning_rate)

    def client(self) -> Client:
        """Return the client's side: train as usual and say how good the incoming model was."""
        return QFedAvgClient()


class AflServer(Server):
    """Weight clients by their shares.

    Attributes:
        shares: One per client, >= 0, float64; they sum to 1.
    """

    def __init__(self, num_clients: int, rate: float) -> None:
        self._rate = rate
        self.shares: npt.NDArray[np.float64] = np.full(num_clients, 1 / num_clients)

    def combine(self, t: int, model: Weights, updates: Updates) -> Weights:
        """Take the mean by the shares so far, then move them; if all present have none, nothing moves."""
        present = [update.client for update in updates]
        now = self.shares[present]
        losses = [update.numbers[GLOBAL_LOSS] for update in updates]
        self.shares[present] += self._rate * np.asarray(losses)
        self.shares = projected(self.shares)
        return updates.mean((now / now.sum()).tolist()) if now.any() else model


def projected(shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the nearest shares that are at least 0 and sum to 1.

    By Duchi et al., Efficient projections onto the l1-ball, ICML 2008, figure 1.
    """
    if shares.max() > FAR:  # less 1, it would be the same number; the nearest shares are the same
        shares = shares - shares.max()
    falling = np.sort(shares)[::-1]
    excess = (np.cumsum(falling) - 1) / np.arange(1, len(shares) + 1)
    threshold = excess[np.flatnonzero(falling > excess)[-1]]
    found = np.maximum(shares - threshold, 0)
    return np.asarray(found / found.sum())
