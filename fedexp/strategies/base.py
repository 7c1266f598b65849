"""What a strategy is: options, facts about it, and its two sides."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import ClassVar

from fedexp.core.layers import Layers
from fedexp.core.options import Plan
from fedexp.core.registry import Registry
from fedexp.core.replies import Carries
from fedexp.core.roles import Client, Job, Server, Setup
from fedexp.core.weights import Weights

FEDERATED, ISOLATED, CENTRALIZED = "federated", "isolated", "centralized"


@dataclass(frozen=True)
class Strategy:
    """How the server combines what the clients send, and what clients do for it.

    Attributes:
        kind: ``federated``; or one of the references, ``isolated`` (every client alone) and
            ``centralized`` (all the data in one place).
        formula: How :attr:`min_clients` comes about, for errors.
        needs_sgd: Whether it relates an update to the SGD steps behind it, which Adam defies.
        measures_distances: Whether it compares whole models, BatchNorm's statistics included, which
            would dominate.
        averages_buffers: Whether its server must not see the model's buffers: BatchNorm's statistics
            and counters are then averaged by examples, as FedAvg does.
        sends_weights: Whether clients and server would send weights, or something in their place, over a
            network; if not, no traffic is reported.
        squares_weights: Whether its server squares weights in the model's own precision, as Adam's second
            moment does: larger ones than others can bear would overflow.
        asks: Arguments of ``job.train`` that its clients use and that not every framework can heed:
            ``only``, ``pull``, ``correction``, ``loss`` or ``rule``. Models that lack one are refused.
        reads_features: Whether its clients ask for ``job.features`` and its server for ``setup.width``.
            Models are refused whose last layer takes no vector, or nothing that is trained.
        personalised: Whether every client is tested with a model of its own, which its
            ``weights_to_test`` makes of what the server sends and what the client keeps.
    """

    kind: ClassVar[str] = FEDERATED
    formula: ClassVar[str] = "1"
    needs_sgd: ClassVar[bool] = False
    measures_distances: ClassVar[bool] = False
    averages_buffers: ClassVar[bool] = False
    sends_weights: ClassVar[bool] = True
    squares_weights: ClassVar[bool] = False
    asks: ClassVar[tuple[str, ...]] = ()
    reads_features: ClassVar[bool] = False
    personalised: ClassVar[bool] = False

    name: str = ""

    @property
    def min_clients(self) -> int:
        """Clients that a round needs for the strategy to be what its paper says."""
        return 1

    @property
    def carries(self) -> Carries:
        """What clients send beside weights; the default client sends nothing further.

        A page with a client of its own declares it, or its replies are not held to it.
        """
        return Carries()

    def keeps(self, layers: Layers) -> Collection[str]:
        """Return the model's entries that stay with every client: nobody sends or averages them.

        A client finds its own in ``job.model``, and what it sends leaves them behind.
        """
        return ()

    def errors(self, plan: Plan) -> Iterable[str]:
        """Return a line for every rule between options that is broken."""
        return []

    def server(self, setup: Setup) -> Server:
        """Return the server's side; called once a run."""
        return Server()

    def client(self) -> Client:
        """Return the client's side; called in every process in which clients run."""
        return Client()


REGISTRY: Registry[Strategy] = Registry("strategy", Strategy)
register = REGISTRY.register


def carried(strategy: Strategy) -> Carries | None:
    """Return what a strategy's replies carry; None where its client is new and nothing was said of it."""
    for page in type(strategy).__mro__:
        if "carries" in vars(page):
            return strategy.carries
        if "client" in vars(page):
            return None
    return None


def gradient_mass(steps: int, momentum: float) -> float:
    """Return by how much the gradients of so many SGD steps move the weights, in learning rates.

    The L1 norm of the accumulation vector of Wang et al. (arXiv 2007.07481, section 4): gradient
    ``k`` of ``n`` counts ``(1 - momentum ** (n - k + 1)) / (1 - momentum)`` times. Without momentum it
    is the number of steps.
    """
    lost = momentum * (1 - momentum**steps) / (1 - momentum)
    return (steps - lost) / (1 - momentum)


class KeepsLayers(Client):
    """Clients that keep layers and train them with the others; a newcomer trains only those it keeps."""

    def weights_to_test(self, job: Job) -> Weights:
        """Return the shared layers and the client's own, which a newcomer trains for a round's steps."""
        if job.state or not job.kept:
            return job.model
        return job.train(only=job.layers.trained(job.kept))
