"""IFCA: several global models, and every client takes part in the one that fits it best."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from fedexp.core.options import Span, ranged
from fedexp.core.replies import Carries
from fedexp.core.roles import Client, Job, Order, Server, Setup, Updates
from fedexp.core.seeding import derive_rng
from fedexp.core.weights import Weights, restore_dtypes
from fedexp.strategies.base import Strategy, register

CLUSTER = "cluster"


@register
@dataclass(frozen=True)
class Ifca(Strategy):
    """Ghosh et al., NeurIPS 2020, arXiv 2006.04088, algorithm 1 with model averaging.

    The server keeps ``num_clusters`` models and sends all of them. A client trains the one that has the
    lowest loss on its training examples, and each model becomes the mean of what was made of it; one that
    nobody chose stays. A client, or a newcomer, is tested with the model that it would choose. With one
    cluster this is FedAvg. Departures: means are weighted by examples, as everywhere here, where the
    paper counts clients; the first model starts as every strategy's does and the others with the
    trained weights shuffled within each array, where the paper draws anew. What stands as the global
    model is the one that most examples of the last round were for.
    """

    personalised = True

    name: str = "ifca"
    num_clusters: int = ranged(2, ge=1, le=100, tuned=Span(1, 5))
    """Models that the server keeps and sends to every client."""

    @property
    def carries(self) -> Carries:
        """Which model a client chose."""
        return Carries(numbers={CLUSTER: (0, self.num_clusters - 1)})

    def server(self, setup: Setup) -> Server:
        """Return the server's side."""
        return IfcaServer(self.num_clusters, setup)

    def client(self) -> Client:
        """Return the client's side."""
        return IfcaClient()


class IfcaServer(Server):
    """Keep a model per cluster.

    Attributes:
        clusters: The models; none before the first round.
    """

    def __init__(self, num_clusters: int, setup: Setup) -> None:
        self._num_clusters, self._seed = num_clusters, setup.seed
        self._trained, self._averaged = setup.parameters, {*setup.parameters, *setup.buffers}
        self.clusters: list[Weights] = []

    def instruct(self, t: int, model: Weights, cohort: Sequence[int]) -> dict[int, Order]:
        """Send every model."""
        return self.before_tests(model, cohort)

    def combine(self, t: int, model: Weights, updates: Updates) -> Weights:
        """Average what was made of each model."""
        chosen = [round(update.numbers[CLUSTER]) for update in updates]
        examples = [0] * self._num_clusters
        for cluster in range(self._num_clusters):
            members = [place for place, choice in enumerate(chosen) if choice == cluster]
            if members:
                before = self.clusters[cluster]
                mean = restore_dtypes(updates.only(members).mean(), before)
                # A mean of equal numbers is not always that number.
                fixed = {name: before[name] for name in before.keys() - self._averaged}
                self.clusters[cluster] = {**mean, **fixed}
                examples[cluster] = sum(updates[place].num_examples for place in members)
        return self.clusters[examples.index(max(examples))]

    def before_tests(self, model: Weights, clients: Sequence[int]) -> dict[int, Order]:
        """Send every model; before the first round, those that it starts from."""
        if not self.clusters:
            others = range(1, self._num_clusters)
            self.clusters = [
                model,
                *(shuffled(model, self._trained, self._seed, k) for k in others),
            ]
        first, *others_now = self.clusters
        arrays = {f"{CLUSTER}-{k}": weights for k, weights in enumerate(others_now, 1)}
        return dict.fromkeys(clients, Order(first, arrays))


class IfcaClient(Client):
    """Choose, train, and say which."""

    def run(self, job: Job) -> None:
        """Train the model that fits best."""
        cluster, weights = _choice(job)
        job.send(job.train(weights), numbers={CLUSTER: cluster})

    def weights_to_test(self, job: Job) -> Weights:
        """Return the model that fits best."""
        return _choice(job)[1]


def _choice(job: Job) -> tuple[int, Weights]:
    """Return the number and the weights of the model with the lowest loss, the first of equals."""
    models = [job.model, *job.order.arrays.values()]
    losses = [job.loss(weights) for weights in models] if len(models) > 1 else [0.0]
    cluster = losses.index(min(losses))
    return cluster, models[cluster]


def shuffled(weights: Weights, names: Collection[str], seed: int, cluster: int) -> Weights:
    """Return weights whose values change places within each array: another start of the same kind.

    Args:
        weights: Initial weights.
        names: Of those to be shuffled; buffers and frozen layers mean what they mean where they are.
        seed: The run's.
        cluster: Which start it is to be, from 1.
    """
    places = derive_rng(seed, "clusters", 0, cluster)
    return {
        name: places.permutation(array.reshape(-1)).reshape(array.shape) if name in names else array
        for name, array in weights.items()
    }
